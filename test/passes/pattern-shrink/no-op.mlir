// RUN: patc-opt --pattern-shrink --split-input-file %s > %t && patc-opt --split-input-file %s | diff - %t
// RUN: patc-opt --pattern-shrink --split-input-file --verify-diagnostics %s

// The sum needs what one of its terms holds in each channel.

func.func @other_channels(%x: tensor<1x1x2x2xf32>) -> tensor<1x1x2x2xf32> {
  %u = arith.constant dense<[[[[1.]]], [[[0.]]]]> : tensor<2x1x1x1xf32>
  %v = arith.constant dense<[[[[0.]]], [[[1.]]]]> : tensor<2x1x1x1xf32>
  %w = arith.constant dense<[[[[1.]], [[2.]]]]> : tensor<1x2x1x1xf32>
  %a = "pattern.conv2d"(%x, %u) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x2x2xf32>
  %b = "pattern.conv2d"(%x, %v, %a) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>, tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %z = "pattern.conv2d"(%b, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x2x2xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x2x2xf32>
  return %z : tensor<1x1x2x2xf32>
}

// -----

// Results of the net and tensors that other ops read keep their channels.

func.func @results(%x: tensor<1x2xf32>, %w: tensor<1x2xf32>) -> (tensor<1x2xf32>, tensor<1x1xf32>) {
  %v = arith.constant dense<[[0., 0.], [1., 0.]]> : tensor<2x2xf32>
  %y = "pattern.linear"(%x, %v) {activation = "relu", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  %a = "pattern.linear"(%y, %v) {activation = "relu", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  %b = "pattern.linear"(%a, %w) {activation = "relu", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x2xf32>, tensor<1x2xf32>) -> tensor<1x1xf32>
  return %y, %b : tensor<1x2xf32>, tensor<1x1xf32>
}
