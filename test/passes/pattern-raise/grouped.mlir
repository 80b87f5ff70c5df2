// RUN: patc-opt --pattern-raise %s | filecheck %s

#map = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>

// CHECK-LABEL: func.func @grouped_with_bias
// CHECK-NEXT:    %[[WEIGHT:.*]] = "pattern.parameter"() {name = "weight"}
// CHECK-NEXT:    %[[BIAS:.*]] = "pattern.parameter"() {name = "bias"}
// CHECK-NEXT:    %[[RESULT:.*]] = "pattern.conv2d"(%{{.*}}, %[[WEIGHT]], %[[BIAS]]) {activation = "relu",
// CHECK-SAME:      groups = 2 : i64
// CHECK-SAME:      pads = array<i64: 1, 1, 1, 1>
// CHECK-SAME:      (tensor<1x4x6x6xf32>, tensor<6x2x3x3xf32>, tensor<6xf32>) -> tensor<1x6x6x6xf32>
// CHECK-NEXT:    return %[[RESULT]]
func.func @grouped_with_bias(%input: tensor<1x4x6x6xf32>) -> tensor<1x6x6x6xf32> {
  %weight = "pattern.parameter"() {name = "weight"} : () -> tensor<6x2x3x3xf32>
  %bias = "pattern.parameter"() {name = "bias"} : () -> tensor<6xf32>
  %zero = arith.constant 0.0 : f32
  %padded = tensor.pad %input low[0, 0, 1, 1] high[0, 0, 1, 1] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<1x4x6x6xf32> to tensor<1x4x8x8xf32>
  %empty = tensor.empty() : tensor<1x6x6x6xf32>
  %init = linalg.broadcast ins(%bias : tensor<6xf32>) outs(%empty : tensor<1x6x6x6xf32>) dimensions = [0, 2, 3]
  %split_input = tensor.expand_shape %padded [[0], [1, 2], [3], [4]] output_shape [1, 2, 2, 8, 8]
    : tensor<1x4x8x8xf32> into tensor<1x2x2x8x8xf32>
  %split_weight = tensor.expand_shape %weight [[0, 1], [2], [3], [4]] output_shape [2, 3, 2, 3, 3]
    : tensor<6x2x3x3xf32> into tensor<2x3x2x3x3xf32>
  %split_init = tensor.expand_shape %init [[0], [1, 2], [3], [4]] output_shape [1, 2, 3, 6, 6]
    : tensor<1x6x6x6xf32> into tensor<1x2x3x6x6xf32>
  %conv = linalg.conv_2d_ngchw_gfchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
    ins(%split_input, %split_weight : tensor<1x2x2x8x8xf32>, tensor<2x3x2x3x3xf32>)
    outs(%split_init : tensor<1x2x3x6x6xf32>) -> tensor<1x2x3x6x6xf32>
  %joined = tensor.collapse_shape %conv [[0], [1, 2], [3], [4]] : tensor<1x2x3x6x6xf32> into tensor<1x6x6x6xf32>
  %relu = linalg.generic {indexing_maps = [#map, #map],
                          iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%joined : tensor<1x6x6x6xf32>) outs(%empty : tensor<1x6x6x6xf32>) {
  ^bb0(%a: f32, %out: f32):
    %m = arith.maximumf %a, %zero : f32
    linalg.yield %m : f32
  } -> tensor<1x6x6x6xf32>
  return %relu : tensor<1x6x6x6xf32>
}

// CHECK-LABEL: func.func @depthwise
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<1x4x6x6xf32>, %[[WEIGHT:[a-z0-9]+]]: tensor<4x1x3x3xf32>
// CHECK-NEXT:    "pattern.conv2d"(%[[INPUT]], %[[WEIGHT]])
// CHECK-SAME:      groups = 4 : i64
// CHECK-SAME:      strides = array<i64: 2, 2>
func.func @depthwise(%input: tensor<1x4x6x6xf32>, %weight: tensor<4x1x3x3xf32>) -> tensor<1x4x2x2xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x4x2x2xf32>
  %flat = tensor.collapse_shape %weight [[0, 1], [2], [3]] : tensor<4x1x3x3xf32> into tensor<4x3x3xf32>
  %conv = linalg.depthwise_conv_2d_nchw_chw {dilations = dense<1> : vector<2xi64>, strides = dense<2> : vector<2xi64>}
    ins(%input, %flat : tensor<1x4x6x6xf32>, tensor<4x3x3xf32>)
    outs(%zero : tensor<1x4x2x2xf32>) -> tensor<1x4x2x2xf32>
  return %conv : tensor<1x4x2x2xf32>
}

// A weight that no op reshapes is reshaped now.

// CHECK-LABEL: func.func @depthwise_with_inline_weight
// CHECK-NEXT:    %[[WEIGHT:.*]] = arith.constant dense<{{\[\[\[\[}}1.000000e+00, 2.000000e+00]]], {{\[\[\[}}3.000000e+00, 4.000000e+00]]]]> : tensor<2x1x1x2xf32>
// CHECK-NEXT:    "pattern.conv2d"(%{{.*}}, %[[WEIGHT]])
func.func @depthwise_with_inline_weight(%input: tensor<1x2x4x4xf32>) -> tensor<1x2x4x3xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x2x4x3xf32>
  %weight = arith.constant dense<[[[1.0, 2.0]], [[3.0, 4.0]]]> : tensor<2x1x2xf32>
  %conv = linalg.depthwise_conv_2d_nchw_chw ins(%input, %weight : tensor<1x2x4x4xf32>, tensor<2x1x2xf32>)
    outs(%zero : tensor<1x2x4x3xf32>) -> tensor<1x2x4x3xf32>
  return %conv : tensor<1x2x4x3xf32>
}
