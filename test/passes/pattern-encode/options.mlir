// RUN: patc-opt --pattern-encode="library=54,27,432" %s | filecheck %s --check-prefix=GIVEN
// RUN: patc-opt --pattern-encode="max-patterns=1" %s | filecheck %s --check-prefix=DENSE
// RUN: patc-opt --pattern-encode="min-sparsity=0.6" %s | filecheck %s --check-prefix=DENSE
// RUN: patc-opt --pattern-encode="min-sparsity=0.5 max-patterns=2" %s | filecheck %s --check-prefix=FOUND

// FOUND: format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>
// DENSE-NOT: pattern.sparse_conv2d

// A given library keeps its order and the patterns that the layer does not use.
// GIVEN: arith.constant dense<{{\[\[}}0, 1, 2, 2]]> : tensor<1x4xi16>
// GIVEN: format = #pattern.fkw<array<i64: 3, 3>, array<i64: 54, 27, 432>>
func.func @two_patterns(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x2x2xf32> {
  %w = arith.constant dense<[
    [[[1., 2., 0.], [3., 4., 0.], [0., 0., 0.]],
     [[0., 5., 6.], [0., 7., 8.], [0., 0., 0.]]]]> : tensor<1x2x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x3x3xf32>) -> tensor<1x1x2x2xf32>
  return %y : tensor<1x1x2x2xf32>
}
