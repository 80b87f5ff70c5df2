// RUN: patc-opt --pattern-raise %s > %t && patc-opt %s | diff - %t

func.func @raised(%input: tensor<1x4x6x6xf32>) -> tensor<1x3xf32> {
  %weight = "pattern.parameter"() {name = "conv.weight"} : () -> tensor<4x4x3x3xf32>
  %conv = "pattern.conv2d"(%input, %weight, %input) {activation = "relu", dilations = array<i64: 1, 1>,
      groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 1, 1, 1, 1>,
      strides = array<i64: 1, 1>}
    : (tensor<1x4x6x6xf32>, tensor<4x4x3x3xf32>, tensor<1x4x6x6xf32>) -> tensor<1x4x6x6xf32>
  %active = "pattern.activate"(%input) {activation = #pattern.activation<"leaky_relu", [1.0e-01 : f32]>}
    : (tensor<1x4x6x6xf32>) -> tensor<1x4x6x6xf32>
  %sum = "pattern.add"(%conv, %active) {activation = "none"}
    : (tensor<1x4x6x6xf32>, tensor<1x4x6x6xf32>) -> tensor<1x4x6x6xf32>
  %pool = "pattern.avg_pool2d"(%sum) {activation = "relu", count_include_pad = true, dilations = array<i64: 1, 1>,
      kernel = array<i64: 6, 6>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x4x6x6xf32>) -> tensor<1x4x1x1xf32>
  %flat = tensor.collapse_shape %pool [[0], [1, 2, 3]] : tensor<1x4x1x1xf32> into tensor<1x4xf32>
  %matrix = arith.constant dense<1.0> : tensor<3x4xf32>
  %linear = "pattern.linear"(%flat, %matrix) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4xf32>, tensor<3x4xf32>) -> tensor<1x3xf32>
  return %linear : tensor<1x3xf32>
}

func.func private @declared(tensor<1x4x6x6xf32>) -> tensor<1x4x6x6xf32>
