// RUN: patc-opt --pattern-raise --verify-diagnostics --split-input-file %s

#map = affine_map<(d0, d1) -> (d0, d1)>

// One error names every op that is left, and where.

func.func @all_at_once(%input: tensor<2x4xf32>) -> (tensor<2x4xf32>, tensor<4x4xf32>) {
  %empty = tensor.empty() : tensor<2x4xf32>
  // expected-error-re @below {{cannot raise: linalg.generic x2 ({{.*}}:10:{{.*}}:16:{{.*}}), tensor.concat (join (model.py:12))}}
  %exp = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%input : tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %r = math.exp %a : f32
    linalg.yield %r : f32
  } -> tensor<2x4xf32>
  %tanh = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%exp : tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %r = math.tanh %a : f32
    linalg.yield %r : f32
  } -> tensor<2x4xf32>
  %join = tensor.concat dim(0) %input, %input : (tensor<2x4xf32>, tensor<2x4xf32>) -> tensor<4x4xf32>
    loc("join"("model.py":12:0))
  return %tanh, %join : tensor<2x4xf32>, tensor<4x4xf32>
}

// -----

func.func @other_element_types(%input: tensor<1x2x4x4xf64>, %weight: tensor<2x2x1x1xf64>) -> tensor<1x2x4x4xf64> {
  %zero = arith.constant dense<0.0> : tensor<1x2x4x4xf64>
  // expected-error @below {{cannot raise: linalg.conv_2d_nchw_fchw of tensor<1x2x4x4xf64>}}
  %conv = linalg.conv_2d_nchw_fchw ins(%input, %weight : tensor<1x2x4x4xf64>, tensor<2x2x1x1xf64>)
    outs(%zero : tensor<1x2x4x4xf64>) -> tensor<1x2x4x4xf64>
  return %conv : tensor<1x2x4x4xf64>
}

// -----

func.func @dynamic_shapes(%input: tensor<?x2x4x4xf32>, %weight: tensor<2x2x1x1xf32>, %init: tensor<?x2x4x4xf32>)
    -> tensor<?x2x4x4xf32> {
  // expected-error @below {{cannot raise: linalg.conv_2d_nchw_fchw of tensor<?x2x4x4xf32>}}
  %conv = linalg.conv_2d_nchw_fchw ins(%input, %weight : tensor<?x2x4x4xf32>, tensor<2x2x1x1xf32>)
    outs(%init : tensor<?x2x4x4xf32>) -> tensor<?x2x4x4xf32>
  return %conv : tensor<?x2x4x4xf32>
}

// -----

// Zeros could win the maximum.

func.func @max_pool_padded_with_zeros(%input: tensor<1x2x4x4xf32>) -> tensor<1x2x5x5xf32> {
  %zero = arith.constant 0.0 : f32
  %lowest = arith.constant dense<0xFF800000> : tensor<1x2x5x5xf32>
  // expected-error @below {{cannot raise: tensor.pad}}
  %padded = tensor.pad %input low[0, 0, 1, 1] high[0, 0, 1, 1] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<1x2x4x4xf32> to tensor<1x2x6x6xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  %pool = linalg.pooling_nchw_max ins(%padded, %window : tensor<1x2x6x6xf32>, tensor<2x2xf32>)
    outs(%lowest : tensor<1x2x5x5xf32>) -> tensor<1x2x5x5xf32>
  return %pool : tensor<1x2x5x5xf32>
}

// -----

func.func @max_pool_that_starts_from_zero(%input: tensor<1x2x4x4xf32>) -> tensor<1x2x3x3xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x2x3x3xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  // expected-error @below {{cannot raise: linalg.pooling_nchw_max}}
  %pool = linalg.pooling_nchw_max ins(%input, %window : tensor<1x2x4x4xf32>, tensor<2x2xf32>)
    outs(%zero : tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  return %pool : tensor<1x2x3x3xf32>
}

// -----

// The right operand is no constant, so that there is no F x C weight.

func.func @product_of_activations(%lhs: tensor<2x3xf32>, %rhs: tensor<3x2xf32>) -> tensor<2x2xf32> {
  %zero = arith.constant dense<0.0> : tensor<2x2xf32>
  // expected-error @below {{cannot raise: linalg.matmul}}
  %product = linalg.matmul ins(%lhs, %rhs : tensor<2x3xf32>, tensor<3x2xf32>)
    outs(%zero : tensor<2x2xf32>) -> tensor<2x2xf32>
  return %product : tensor<2x2xf32>
}

// -----

// Nothing but a destination is left.

func.func @undefined_result() -> tensor<2x2xf32> {
  // expected-error @below {{cannot raise: tensor.empty}}
  %empty = tensor.empty() : tensor<2x2xf32>
  return %empty : tensor<2x2xf32>
}
