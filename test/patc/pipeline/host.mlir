// RUN: patc-opt --pass-pipeline='builtin.module(pattern-fold-batch-norm,pattern-raise,pattern-encode,pattern-reorder,pattern-layout,pattern-schedule)' %s | filecheck %s --check-prefix=LAYERS
// RUN: patc-opt --pass-pipeline='builtin.module(pattern-fold-batch-norm,pattern-raise,pattern-encode,pattern-reorder,pattern-layout,pattern-schedule{threads=2},pattern-specialize,pattern-vectorize,pattern-plan-memory,pattern-parallelize)' %s | filecheck %s --check-prefix=CODE

// A net with all that layers have to agree on: pads, a residual, windows of stride 2, pools and a linear layer. The
// caller's input is brought into a padded layout; from there on each layer writes what the next one reads, so that
// nothing is padded, copied or moved.

// LAYERS-LABEL: func.func @main
// LAYERS-COUNT-1: pattern.relayout
// LAYERS-NOT:     pattern.relayout
// LAYERS-NOT:     tensor.pad
// LAYERS-NOT:     linalg
// LAYERS:         return

// In the code as well: one layer each, in one parallel region, in memory that the caller gives.

// CODE-NOT:   memref.global
// CODE-LABEL: func.func @main
// CODE-SAME:    (%{{[a-z0-9]+}}: memref<512xf32>, %{{[a-z0-9]+}}: memref<3xf32>, %{{[a-z0-9]+}}: memref<8xi64>, %[[ARENA:[a-z0-9]+]]: memref<{{[0-9]+}}xi8>, %[[WEIGHTS:[a-z0-9]+]]: memref<{{[0-9]+}}xi8>)
// CODE-NOT:     memref.alloc
// CODE-NOT:     memref.copy
// CODE:         omp.parallel
// CODE:           call @elementwise_0
// CODE:           call @pattern_direct_0
// CODE:           call @pattern_direct_{{[01]}}
// CODE:           call @pool_0
// CODE:           call @dense_direct_0
// CODE:           call @global_pool_0
// CODE:           call @gemv_0
// CODE:         return
// CODE-NOT:   memref.alloc
// CODE-NOT:   memref.copy
// CODE-NOT:   "pattern.
// CODE-NOT:   tensor<
func.func @main(%x: tensor<1x2x16x16xf32>) -> tensor<1x3xf32> {
  %w1 = arith.constant dense<[
    [[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]],
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 5.0, 6.0], [0.0, 7.0, 8.0], [0.0, 0.0, 0.0]]]
  ]> : tensor<2x2x3x3xf32>
  %w2 = arith.constant dense<[
    [[[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 3.0, 4.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]],
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 5.0, 6.0], [0.0, 7.0, 8.0], [0.0, 0.0, 0.0]]]
  ]> : tensor<2x2x3x3xf32>
  %w3 = arith.constant dense<1.0> : tensor<4x2x1x1xf32>
  %w4 = arith.constant dense<1.0> : tensor<3x4xf32>
  %bias = arith.constant dense<1.0> : tensor<2xf32>
  %a = "pattern.conv2d"(%x, %w1, %bias) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x16x16xf32>, tensor<2x2x3x3xf32>, tensor<2xf32>) -> tensor<1x2x16x16xf32>
  %b = "pattern.conv2d"(%a, %w2, %bias, %a) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 1>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x16x16xf32>, tensor<2x2x3x3xf32>, tensor<2xf32>, tensor<1x2x16x16xf32>) -> tensor<1x2x16x16xf32>
  %c = "pattern.max_pool2d"(%b) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>} : (tensor<1x2x16x16xf32>) -> tensor<1x2x8x8xf32>
  %d = "pattern.conv2d"(%c, %w3) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 2, 2>}
    : (tensor<1x2x8x8xf32>, tensor<4x2x1x1xf32>) -> tensor<1x4x4x4xf32>
  %e = "pattern.avg_pool2d"(%d) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 4, 4>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x4x4x4xf32>) -> tensor<1x4x1x1xf32>
  %flat = tensor.collapse_shape %e [[0], [1, 2, 3]] : tensor<1x4x1x1xf32> into tensor<1x4xf32>
  %y = "pattern.linear"(%flat, %w4) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4xf32>, tensor<3x4xf32>) -> tensor<1x3xf32>
  return %y : tensor<1x3xf32>
}
