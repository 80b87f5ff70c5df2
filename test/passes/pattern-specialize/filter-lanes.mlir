// RUN: patc-opt --pattern-layout=target=x86-64-v4 --pattern-schedule=target=x86-64-v4 --pattern-specialize %s | filecheck %s

// Of a row of three taps four outputs read six inputs: each is loaded once. Nine megabytes of weights are read once, for
// all tiles; each of a block's two tiles asks for half of the next block's, which are nine lines a channel.

#tile = #pattern.schedule<{algorithm = "filter-lanes", columns = 4 : i64, filters = 16 : i64, lanes = 8 : i64, rows = 2 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>

// CHECK-LABEL: func.func private @filter_lanes_0
// CHECK-SAME:    (%[[X:[a-z0-9]*]]: memref<{{[0-9]*}}xf32>, %[[WEIGHTS:[a-z0-9]*]]: memref<{{[0-9]*}}xf32>
// CHECK:         scf.for %[[BLOCK:.*]] =
// CHECK:         scf.for %[[TILE:.*]] =
// CHECK:         scf.for %[[CHANNEL:.*]] =
// CHECK-COUNT-5:   memref.prefetch %[[WEIGHTS]]
// CHECK-NOT:       memref.prefetch
// CHECK-COUNT-3:   vector.load %[[WEIGHTS]]
// CHECK-COUNT-12:  memref.load %[[X]]
// CHECK-NOT:       memref.load
// CHECK-COUNT-3:   vector.load %[[WEIGHTS]]
// CHECK-COUNT-12:  memref.load %[[X]]
// CHECK-NOT:       memref.load
// CHECK-COUNT-3:   vector.load %[[WEIGHTS]]
// CHECK-COUNT-12:  memref.load %[[X]]
// CHECK-NOT:       memref.load
// CHECK:           scf.yield
func.func @inputs_are_loaded_once(%x: tensor<1x512x4x4xf32>) -> tensor<1x512x4x4xf32> {
  %w = arith.constant dense<1.0> : tensor<512x512x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, schedule = #tile,
    strides = array<i64: 1, 1>} : (tensor<1x512x4x4xf32>, tensor<512x512x3x3xf32>) -> tensor<1x512x4x4xf32>
  return %y : tensor<1x512x4x4xf32>
}
