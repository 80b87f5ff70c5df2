// RUN: patc-opt --pattern-encode --pattern-reorder %s > %t && patc-opt --pattern-reorder %t | diff %t -

func.func @residual_block(%x: tensor<1x3x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w0 = arith.constant dense<[
    [[[0., 0., 0.]], [[0., 0., 0.]], [[1., 2., 0.]]],
    [[[0., 4., 3.]], [[0., 0., 0.]], [[0., 0., 0.]]],
    [[[5., 6., 0.]], [[0., 7., 8.]], [[0., 0., 0.]]]]> : tensor<3x3x1x3xf32>
  %w1 = arith.constant dense<[
    [[[0., 0., 0.]], [[3., 1., 0.]], [[1., 2., 0.]]],
    [[[0., 4., 3.]], [[0., 1., 2.]], [[2., 3., 0.]]],
    [[[0., 0., 0.]], [[0., 7., 8.]], [[1., 4., 0.]]]]> : tensor<3x3x1x3xf32>
  %w2 = arith.constant dense<[[[[1.]], [[2.]], [[3.]]], [[[4.]], [[5.]], [[6.]]]]> : tensor<2x3x1x1xf32>
  %a = "pattern.conv2d"(%x, %w0) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 1, 0, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x3x4x4xf32>, tensor<3x3x1x3xf32>) -> tensor<1x3x4x4xf32>
  %b = "pattern.conv2d"(%a, %w1, %a) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 0, 1, 0, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x3x4x4xf32>, tensor<3x3x1x3xf32>, tensor<1x3x4x4xf32>) -> tensor<1x3x4x4xf32>
  %y = "pattern.conv2d"(%b, %w2) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x3x4x4xf32>, tensor<2x3x1x1xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}
