// RUN: patc-opt --pattern-raise %s | filecheck %s

#map = affine_map<(d0, d1) -> (d0, d1)>
#feature = affine_map<(d0, d1) -> (d1)>

// CHECK-LABEL: func.func @linear_takes_bias_and_relu
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<2x8xf32>, %[[WEIGHT:[a-z0-9]+]]: tensor<5x8xf32>, %[[BIAS:[a-z0-9]+]]: tensor<5xf32>
// CHECK-NEXT:    %[[RESULT:.*]] = "pattern.linear"(%[[INPUT]], %[[WEIGHT]], %[[BIAS]]) {activation = "relu"
// CHECK-NEXT:    return %[[RESULT]]
func.func @linear_takes_bias_and_relu(
    %input: tensor<2x8xf32>, %weight: tensor<5x8xf32>, %bias: tensor<5xf32>) -> tensor<2x5xf32> {
  %zero = arith.constant 0.0 : f32
  %destination = tensor.empty() : tensor<8x5xf32>
  %transposed = linalg.transpose ins(%weight : tensor<5x8xf32>) outs(%destination : tensor<8x5xf32>) permutation = [1, 0]
  %empty = tensor.empty() : tensor<2x5xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x5xf32>) -> tensor<2x5xf32>
  %product = linalg.matmul ins(%input, %transposed : tensor<2x8xf32>, tensor<8x5xf32>)
    outs(%init : tensor<2x5xf32>) -> tensor<2x5xf32>
  %sum = linalg.generic {indexing_maps = [#map, #feature, #map], iterator_types = ["parallel", "parallel"]}
      ins(%product, %bias : tensor<2x5xf32>, tensor<5xf32>) outs(%empty : tensor<2x5xf32>) {
  ^bb0(%a: f32, %b: f32, %out: f32):
    %s = arith.addf %a, %b : f32
    linalg.yield %s : f32
  } -> tensor<2x5xf32>
  %relu = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%sum : tensor<2x5xf32>) outs(%empty : tensor<2x5xf32>) {
  ^bb0(%a: f32, %out: f32):
    %positive = arith.cmpf ugt, %a, %zero : f32
    %r = arith.select %positive, %a, %zero : f32
    linalg.yield %r : f32
  } -> tensor<2x5xf32>
  return %relu : tensor<2x5xf32>
}

// CHECK-LABEL: func.func @bias_as_initial_value
// CHECK-SAME:    %{{.*}}, %[[WEIGHT:[a-z0-9]+]]: tensor<5x8xf32>, %[[BIAS:[a-z0-9]+]]: tensor<5xf32>
// CHECK-NEXT:    "pattern.linear"(%{{.*}}, %[[WEIGHT]], %[[BIAS]])
func.func @bias_as_initial_value(
    %input: tensor<2x8xf32>, %weight: tensor<5x8xf32>, %bias: tensor<5xf32>) -> tensor<2x5xf32> {
  %empty = tensor.empty() : tensor<2x5xf32>
  %init = linalg.broadcast ins(%bias : tensor<5xf32>) outs(%empty : tensor<2x5xf32>) dimensions = [0]
  %product = linalg.matmul
      indexing_maps = [affine_map<(d0, d1, d2) -> (d0, d2)>, affine_map<(d0, d1, d2) -> (d1, d2)>,
                       affine_map<(d0, d1, d2) -> (d0, d1)>]
      ins(%input, %weight : tensor<2x8xf32>, tensor<5x8xf32>) outs(%init : tensor<2x5xf32>) -> tensor<2x5xf32>
  return %product : tensor<2x5xf32>
}

// CHECK-LABEL: func.func @constant_weight_is_transposed_now
// CHECK-NEXT:    %[[WEIGHT:.*]] = arith.constant dense<{{\[\[}}1.000000e+00, 3.000000e+00, 5.000000e+00], [2.000000e+00, 4.000000e+00, 6.000000e+00]]>
// CHECK-NEXT:    "pattern.linear"(%{{.*}}, %[[WEIGHT]])
func.func @constant_weight_is_transposed_now(%input: tensor<2x3xf32>) -> tensor<2x2xf32> {
  %zero = arith.constant dense<0.0> : tensor<2x2xf32>
  %weight = arith.constant dense<[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]> : tensor<3x2xf32>
  %product = linalg.matmul ins(%input, %weight : tensor<2x3xf32>, tensor<3x2xf32>)
    outs(%zero : tensor<2x2xf32>) -> tensor<2x2xf32>
  return %product : tensor<2x2xf32>
}

// CHECK-LABEL: func.func @second_bias_is_added_to_the_first
// CHECK-NEXT:    %[[BIAS:.*]] = arith.constant dense<[1.100000e+01, 2.200000e+01]>
// CHECK-NEXT:    "pattern.linear"(%{{.*}}, %{{.*}}, %[[BIAS]])
// CHECK-NEXT:    return
func.func @second_bias_is_added_to_the_first(%input: tensor<2x3xf32>, %weight: tensor<2x3xf32>) -> tensor<2x2xf32> {
  %first = arith.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %second = arith.constant dense<[10.0, 20.0]> : tensor<2xf32>
  %destination = tensor.empty() : tensor<3x2xf32>
  %transposed = linalg.transpose ins(%weight : tensor<2x3xf32>) outs(%destination : tensor<3x2xf32>) permutation = [1, 0]
  %empty = tensor.empty() : tensor<2x2xf32>
  %init = linalg.broadcast ins(%first : tensor<2xf32>) outs(%empty : tensor<2x2xf32>) dimensions = [0]
  %product = linalg.matmul ins(%input, %transposed : tensor<2x3xf32>, tensor<3x2xf32>)
    outs(%init : tensor<2x2xf32>) -> tensor<2x2xf32>
  %sum = linalg.generic {indexing_maps = [#map, #feature, #map], iterator_types = ["parallel", "parallel"]}
      ins(%product, %second : tensor<2x2xf32>, tensor<2xf32>) outs(%empty : tensor<2x2xf32>) {
  ^bb0(%a: f32, %b: f32, %out: f32):
    %s = arith.addf %b, %a : f32
    linalg.yield %s : f32
  } -> tensor<2x2xf32>
  return %sum : tensor<2x2xf32>
}

// Another user wants the layer without its bias: it is computed twice.

// CHECK-LABEL: func.func @bias_after_two_uses
// CHECK-NEXT:    %[[PLAIN:.*]] = "pattern.linear"(%{{.*}}, %{{.*}}) {
// CHECK-NEXT:    %[[BIASED:.*]] = "pattern.linear"(%{{.*}}, %{{.*}}, %{{.*}}) {
// CHECK-NEXT:    return %[[PLAIN]], %[[BIASED]]
func.func @bias_after_two_uses(%input: tensor<2x3xf32>, %weight: tensor<2x3xf32>, %bias: tensor<2xf32>)
    -> (tensor<2x2xf32>, tensor<2x2xf32>) {
  %linear = "pattern.linear"(%input, %weight) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x2xf32>
  %empty = tensor.empty() : tensor<2x2xf32>
  %sum = linalg.generic {indexing_maps = [#map, #feature, #map], iterator_types = ["parallel", "parallel"]}
      ins(%linear, %bias : tensor<2x2xf32>, tensor<2xf32>) outs(%empty : tensor<2x2xf32>) {
  ^bb0(%a: f32, %b: f32, %out: f32):
    %s = arith.addf %a, %b : f32
    linalg.yield %s : f32
  } -> tensor<2x2xf32>
  return %linear, %sum : tensor<2x2xf32>, tensor<2x2xf32>
}
