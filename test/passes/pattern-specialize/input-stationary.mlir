// RUN: patc-opt --pattern-layout=target=x86-64-v4 --pattern-schedule=target=x86-64-v4 --pattern-specialize %s | filecheck %s

// Accumulators start in a scratch array; per channel and pattern the inputs are loaded once, before the loop over the
// filters that keep this kernel; that loop loads accumulators, adds four products and stores them, without a branch.

#tile = #pattern.schedule<{algorithm = "input-stationary", columns = 8 : i64, filters = 2 : i64, lanes = 8 : i64, rows = 1 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>

// CHECK-LABEL: func.func private @input_stationary_0
// CHECK-SAME:    (%[[X:.*]]: memref<[[MANY:.*]]xf32>, %[[VALUES:[a-z0-9]*]]: memref<{{.*}}xf32>, %[[PLACE:[a-z0-9]*]]: memref<{{.*}}xi16>
// CHECK:         %[[SUMS:.*]] = memref.alloca() {alignment = 64 : i64}
// CHECK:         scf.for %[[TILE:.*]] =
// CHECK:         scf.for %[[BLOCK:.*]] =
// CHECK:         scf.for %[[FILTER:.*]] =
// CHECK:           vector.store %{{.*}}, %[[SUMS]]
// CHECK:         scf.for %[[CHANNEL:.*]] =
// CHECK:           memref.prefetch %[[X]]
// CHECK-COUNT-4:   vector.load %[[X]]
// CHECK:           scf.for %[[KERNEL:.*]] =
// CHECK-NOT:         scf.if
// CHECK:             memref.load %[[PLACE]][%[[KERNEL]]]
// CHECK-COUNT-4:     memref.load %[[VALUES]]
// CHECK:             vector.load %[[SUMS]]
// CHECK-NOT:         vector.load
// CHECK-COUNT-4:     math.fma
// CHECK:             vector.store %{{.*}}, %[[SUMS]]
// CHECK-COUNT-4:   vector.load %[[X]]
// CHECK:           scf.for
// CHECK:         scf.for
// CHECK:           vector.load %[[SUMS]]
// CHECK:           vector.store
func.func @filters_pass_by(%x: tensor<1x2x8x16xf32>) -> tensor<1x2x8x16xf32> {
  %values = arith.constant dense<[[1., 2., 3., 4.], [5., 6., 7., 8.], [9., 1., 2., 3.]]> : tensor<3x4xf32>
  %index = arith.constant dense<[0, 1, 0]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 2, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1, 2], [0, 1, 1]]> : tensor<2x3xi16>
  %reorder = arith.constant dense<[1, 0]> : tensor<2xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>, schedule = #tile,
    strides = array<i64: 1, 1>} : (tensor<1x2x8x16xf32>, tensor<3x4xf32>, tensor<3xi16>, tensor<3xi32>,
    tensor<2x3xi16>, tensor<2xi16>) -> tensor<1x2x8x16xf32>
  return %y : tensor<1x2x8x16xf32>
}
