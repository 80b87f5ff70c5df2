// RUN: patc-opt --pattern-raise %s | filecheck %s

// What is no layer stays as it is, for pattern-outline.

#map = affine_map<(d0, d1) -> (d0, d1)>

// CHECK-LABEL: func.func @other_functions
// CHECK: linalg.generic
// CHECK: math.exp
// CHECK: tensor.concat
func.func @other_functions(%input: tensor<2x4xf32>) -> (tensor<2x4xf32>, tensor<4x4xf32>) {
  %empty = tensor.empty() : tensor<2x4xf32>
  %exp = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%input : tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %r = math.exp %a : f32
    linalg.yield %r : f32
  } -> tensor<2x4xf32>
  %join = tensor.concat dim(0) %input, %input : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<4x4xf32>
  return %exp, %join : tensor<2x4xf32>, tensor<4x4xf32>
}

// CHECK-LABEL: func.func @other_element_types
// CHECK: linalg.conv_2d_nchw_fchw
func.func @other_element_types(%input: tensor<1x2x4x4xf64>, %weight: tensor<2x2x1x1xf64>) -> tensor<1x2x4x4xf64> {
  %zero = arith.constant dense<0.0> : tensor<1x2x4x4xf64>
  %conv = linalg.conv_2d_nchw_fchw ins(%input, %weight : tensor<1x2x4x4xf64>, tensor<2x2x1x1xf64>)
    outs(%zero : tensor<1x2x4x4xf64>) -> tensor<1x2x4x4xf64>
  return %conv : tensor<1x2x4x4xf64>
}

// Zeros could win the maximum.

// CHECK-LABEL: func.func @max_pool_padded_with_zeros
// CHECK: tensor.pad
func.func @max_pool_padded_with_zeros(%input: tensor<1x2x4x4xf32>) -> tensor<1x2x5x5xf32> {
  %zero = arith.constant 0.0 : f32
  %lowest = arith.constant dense<0xFF800000> : tensor<1x2x5x5xf32>
  %padded = tensor.pad %input low[0, 0, 1, 1] high[0, 0, 1, 1] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<1x2x4x4xf32> to tensor<1x2x6x6xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  %pool = linalg.pooling_nchw_max ins(%padded, %window : tensor<1x2x6x6xf32>, tensor<2x2xf32>)
    outs(%lowest : tensor<1x2x5x5xf32>) -> tensor<1x2x5x5xf32>
  return %pool : tensor<1x2x5x5xf32>
}

// CHECK-LABEL: func.func @max_pool_that_starts_from_zero
// CHECK: linalg.pooling_nchw_max
func.func @max_pool_that_starts_from_zero(%input: tensor<1x2x4x4xf32>) -> tensor<1x2x3x3xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x2x3x3xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  %pool = linalg.pooling_nchw_max ins(%input, %window : tensor<1x2x4x4xf32>, tensor<2x2xf32>)
    outs(%zero : tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  return %pool : tensor<1x2x3x3xf32>
}

// The right operand is no constant, so that there is no F x C weight.

// CHECK-LABEL: func.func @product_of_activations
// CHECK: linalg.matmul
func.func @product_of_activations(%lhs: tensor<2x3xf32>, %rhs: tensor<3x2xf32>) -> tensor<2x2xf32> {
  %zero = arith.constant dense<0.0> : tensor<2x2xf32>
  %product = linalg.matmul ins(%lhs, %rhs : tensor<2x3xf32>, tensor<3x2xf32>)
    outs(%zero : tensor<2x2xf32>) -> tensor<2x2xf32>
  return %product : tensor<2x2xf32>
}
