// RUN: patc-opt --pattern-demote=dtype=f16 --split-input-file --verify-diagnostics %s

func.func @weight_beyond_f16(%x: tensor<1x1x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = arith.constant dense<[[[[1.0]]], [[[-65520.0]]]]> : tensor<2x1x1x1xf32>
  // expected-error @below {{'pattern.conv2d' op expected constants of magnitude 65504 or less for f16, got -65520}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x1x4x4xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}

// -----

func.func @op_of_another_dialect(%x: tensor<1x2x8x8xf32>, %y: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'linalg.add' op expected a pattern op, a constant or a change of shape, got linalg.add}}
  %sum = linalg.add ins(%x, %y : tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) outs(%x : tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %sum : tensor<1x2x8x8xf32>
}

// -----

func.func @constant_of_another_file(%x: tensor<2xf32>) -> tensor<2xf32> {
  // expected-error @below {{expected the values of dense_resource<elsewhere> in the text, found none}}
  %c = arith.constant dense_resource<elsewhere> : tensor<2xf32>
  %y = "pattern.add"(%x, %c) {activation = "none"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}
