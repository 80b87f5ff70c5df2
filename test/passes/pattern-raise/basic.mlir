// RUN: patc-opt --pattern-raise %s | filecheck %s

#map = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>

// CHECK-LABEL: func.func @convolution_takes_pad_bias_residual_and_relu
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<1x8x6x6xf32>, %[[WEIGHT:[a-z0-9]+]]: tensor<8x8x3x3xf32>, %[[BIAS:[a-z0-9]+]]: tensor<8xf32>, %[[SKIP:[a-z0-9]+]]: tensor<1x8x6x6xf32>
// CHECK-NEXT:    %[[RESULT:.*]] = "pattern.conv2d"(%[[INPUT]], %[[WEIGHT]], %[[BIAS]], %[[SKIP]])
// CHECK-SAME:      activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64
// CHECK-SAME:      pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>
// CHECK-NEXT:    return %[[RESULT]]
func.func @convolution_takes_pad_bias_residual_and_relu(
    %input: tensor<1x8x6x6xf32>, %weight: tensor<8x8x3x3xf32>, %bias: tensor<8xf32>,
    %skip: tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32> {
  %zero = arith.constant 0.0 : f32
  %padded = tensor.pad %input low[0, 0, 1, 1] high[0, 0, 1, 1] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<1x8x6x6xf32> to tensor<1x8x8x8xf32>
  %empty = tensor.empty() : tensor<1x8x6x6xf32>
  %init = linalg.broadcast ins(%bias : tensor<8xf32>) outs(%empty : tensor<1x8x6x6xf32>) dimensions = [0, 2, 3]
  %conv = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
    ins(%padded, %weight : tensor<1x8x8x8xf32>, tensor<8x8x3x3xf32>)
    outs(%init : tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32>
  %sum = linalg.generic {indexing_maps = [#map, #map, #map],
                         iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%skip, %conv : tensor<1x8x6x6xf32>, tensor<1x8x6x6xf32>) outs(%empty : tensor<1x8x6x6xf32>) {
  ^bb0(%a: f32, %b: f32, %out: f32):
    %s = arith.addf %a, %b : f32
    linalg.yield %s : f32
  } -> tensor<1x8x6x6xf32>
  %relu = linalg.generic {indexing_maps = [#map, #map],
                          iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%sum : tensor<1x8x6x6xf32>) outs(%empty : tensor<1x8x6x6xf32>) {
  ^bb0(%a: f32, %out: f32):
    %positive = arith.cmpf ugt, %a, %zero : f32
    %r = arith.select %positive, %a, %zero : f32
    linalg.yield %r : f32
  } -> tensor<1x8x6x6xf32>
  return %relu : tensor<1x8x6x6xf32>
}

// Strides and dilations, pads that differ on each side, in two steps.

// CHECK-LABEL: func.func @keeps_the_geometry
// CHECK:         "pattern.conv2d"(%{{.*}}, %{{.*}}) {activation = "none", dilations = array<i64: 1, 2>,
// CHECK-SAME:      pads = array<i64: 2, 0, 1, 3>, strides = array<i64: 2, 1>
func.func @keeps_the_geometry(%input: tensor<2x3x7x7xf32>, %weight: tensor<4x3x3x2xf32>) -> tensor<2x4x4x8xf32> {
  %zero = arith.constant 0.0 : f32
  %above = tensor.pad %input low[0, 0, 2, 0] high[0, 0, 0, 1] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<2x3x7x7xf32> to tensor<2x3x9x8xf32>
  %padded = tensor.pad %above low[0, 0, 0, 0] high[0, 0, 1, 2] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<2x3x9x8xf32> to tensor<2x3x10x10xf32>
  %empty = tensor.empty() : tensor<2x4x4x8xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x4x4x8xf32>) -> tensor<2x4x4x8xf32>
  %conv = linalg.conv_2d_nchw_fchw {dilations = dense<[1, 2]> : vector<2xi64>, strides = dense<[2, 1]> : vector<2xi64>}
    ins(%padded, %weight : tensor<2x3x10x10xf32>, tensor<4x3x3x2xf32>)
    outs(%init : tensor<2x4x4x8xf32>) -> tensor<2x4x4x8xf32>
  return %conv : tensor<2x4x4x8xf32>
}

// A convolution that adds to what is there.

// CHECK-LABEL: func.func @initial_value_is_the_residual
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<1x2x4x4xf32>, %[[WEIGHT:[a-z0-9]+]]: tensor<2x2x1x1xf32>, %[[SKIP:[a-z0-9]+]]: tensor<1x2x4x4xf32>
// CHECK-NEXT:    "pattern.conv2d"(%[[INPUT]], %[[WEIGHT]], %[[SKIP]])
// CHECK-SAME:      operandSegmentSizes = array<i32: 1, 1, 0, 1>
func.func @initial_value_is_the_residual(
    %input: tensor<1x2x4x4xf32>, %weight: tensor<2x2x1x1xf32>, %skip: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %conv = linalg.conv_2d_nchw_fchw ins(%input, %weight : tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>)
    outs(%skip : tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %conv : tensor<1x2x4x4xf32>
}
