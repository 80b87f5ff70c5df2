// RUN: patc-opt --pattern-layout=target=x86-64-v4 --pattern-schedule=target=x86-64-v4 --pattern-specialize --split-input-file %s | filecheck %s
// RUN: patc-opt --pattern-layout=target=x86-64-v4 --pattern-schedule=target=x86-64-v4 --pattern-specialize --split-input-file %s | filecheck %s --check-prefix=LOWERED

// LOWERED-NOT: "pattern.
// LOWERED-NOT: {{^ .*}}tensor<

// Two patterns: two loops over kept kernels, one after the other, without a branch. Row 1 of the input is read by both
// output rows of the tile, but loaded once.

#tile = #pattern.schedule<{algorithm = "pattern-direct", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 2 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>

// CHECK-LABEL: func.func @one_loop_for_each_pattern
// CHECK-SAME:    (%[[INPUT:.*]]: memref<256xf32>, %[[OUTPUT:.*]]: memref<128xf32>, %[[TIMES:.*]]: memref<{{[0-9]+}}xi64>)
// CHECK:         call @pattern_direct_0(
// CHECK:         return
// CHECK-LABEL: func.func private @pattern_direct_0
// CHECK-SAME:    (%[[X:.*]]: memref<[[MANY:.*]]xf32>, %[[VALUES:[a-z0-9]*]]: memref<{{.*}}xf32>, %[[INDEX:[a-z0-9]*]]: memref<{{.*}}xi16>
// CHECK:         scf.for %[[TILE:.*]] =
// CHECK:         scf.for %[[FILTER:.*]] =
// CHECK:         %[[FIRST:.*]]:2 = scf.for %[[KERNEL:.*]] = %{{.*}} to %[[MIDDLE:.*]] step %{{.*}} iter_args
// CHECK-NOT:       scf.if
// CHECK:           memref.load %[[INDEX]][%[[KERNEL]]]
// CHECK:           memref.load %[[VALUES]]
// CHECK-COUNT-2:   vector.load %[[X]]{{.*}} vector<8xf32>
// CHECK:           %[[SHARED:.*]] = vector.load %[[X]]
// CHECK-NEXT:      math.fma %{{.*}}, %[[SHARED]]
// CHECK-NEXT:      math.fma %{{.*}}, %[[SHARED]]
// CHECK-NOT:       scf.if
// CHECK:           scf.yield
// CHECK:         %[[SUMS:.*]]:2 = scf.for %{{.*}} = %[[MIDDLE]] to %{{.*}} step %{{.*}} iter_args(%{{.*}} = %[[FIRST]]#0, %{{.*}} = %[[FIRST]]#1)
// CHECK-NOT:       scf.if
// CHECK:           scf.yield
// CHECK:         vector.store %[[SUMS]]#0
// CHECK:         vector.store %[[SUMS]]#1
func.func @one_loop_for_each_pattern(%x: tensor<1x2x8x16xf32>) -> tensor<1x1x8x16xf32> {
  %values = arith.constant dense<[[1., 2., 3., 4.], [5., 6., 7., 8.]]> : tensor<2x4xf32>
  %index = arith.constant dense<[0, 1]> : tensor<2xi16>
  %offset = arith.constant dense<[0, 2]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1, 2]]> : tensor<1x3xi16>
  %reorder = arith.constant dense<[0]> : tensor<1xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>, schedule = #tile,
    strides = array<i64: 1, 1>} : (tensor<1x2x8x16xf32>, tensor<2x4xf32>, tensor<2xi16>, tensor<2xi32>,
    tensor<1x3xi16>, tensor<1xi16>) -> tensor<1x1x8x16xf32>
  return %y : tensor<1x1x8x16xf32>
}

// -----

// The second layer has other weights, and keeps fewer kernels.

#tile = #pattern.schedule<{algorithm = "pattern-direct", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 2 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>

// CHECK-LABEL: func.func @layers_that_differ_in_weights_share_a_kernel
// CHECK:         call @pattern_direct_0(
// CHECK:         call @pattern_direct_0(
// CHECK-LABEL: func.func private @pattern_direct_0
// CHECK-NOT:   func.func private @pattern_direct
func.func @layers_that_differ_in_weights_share_a_kernel(%x: tensor<1x1x8x16xf32>, %y: tensor<1x1x8x16xf32>)
    -> (tensor<1x1x8x16xf32>, tensor<1x1x8x16xf32>) {
  %many = arith.constant dense<[[1., 2.], [3., 4.]]> : tensor<2x2xf32>
  %few = arith.constant dense<[[5., 6.]]> : tensor<1x2xf32>
  %index = arith.constant dense<[0, 0]> : tensor<2xi16>
  %index_of_few = arith.constant dense<[0]> : tensor<1xi16>
  %offset = arith.constant dense<[0, 2]> : tensor<2xi32>
  %offset_of_few = arith.constant dense<[0, 1]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1, 2]]> : tensor<1x3xi16>
  %pattern_offsets_of_few = arith.constant dense<[[0, 1, 1]]> : tensor<1x3xi16>
  %reorder = arith.constant dense<[0]> : tensor<1xi16>
  %a = "pattern.sparse_conv2d"(%x, %many, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 2, 1>, array<i64: 3, 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 0, 0, 0>, schedule = #tile,
    strides = array<i64: 1, 1>} : (tensor<1x1x8x16xf32>, tensor<2x2xf32>, tensor<2xi16>, tensor<2xi32>,
    tensor<1x3xi16>, tensor<1xi16>) -> tensor<1x1x8x16xf32>
  %b = "pattern.sparse_conv2d"(%y, %few, %index_of_few, %offset_of_few, %pattern_offsets_of_few, %reorder) {
    activation = "none", dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 2, 1>, array<i64: 3, 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 0, 0, 0>, schedule = #tile,
    strides = array<i64: 1, 1>} : (tensor<1x1x8x16xf32>, tensor<1x2xf32>, tensor<1xi16>, tensor<2xi32>,
    tensor<1x3xi16>, tensor<1xi16>) -> tensor<1x1x8x16xf32>
  return %a, %b : tensor<1x1x8x16xf32>, tensor<1x1x8x16xf32>
}

// -----

// The order of the epilogue: bias first, then residual, then the activation.

#tile = #pattern.schedule<{algorithm = "dense-direct", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 1 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>

// CHECK-LABEL: func.func @bias_residual_and_activation
// CHECK:         call @dense_direct_0(
// CHECK-LABEL: func.func private @dense_direct_0
// CHECK-SAME:    %[[X:[a-z0-9]+]]: {{[^,]*}}, %[[WEIGHT:[a-z0-9]+]]: {{[^,]*}}, %[[Y:[a-z0-9]+]]: {{[^,]*}}, %[[BIAS:[a-z0-9]+]]: {{[^,]*}}, %[[RESIDUAL:[a-z0-9]+]]: {{[^,]*}},
// CHECK-DAG:     %[[LOW:.*]] = arith.constant dense<-1.0{{.*}}> : vector<16xf32>
// CHECK-DAG:     %[[HIGH:.*]] = arith.constant dense<6.0{{.*}}> : vector<16xf32>
// CHECK:         %[[SCALAR:.*]] = memref.load %[[BIAS]]
// CHECK:         %[[START:.*]] = vector.broadcast %[[SCALAR]]
// CHECK:         %[[SUM:.*]] = scf.for {{.*}} iter_args(%{{.*}} = %[[START]])
// CHECK:         %[[SKIP:.*]] = vector.maskedload %[[RESIDUAL]]
// CHECK:         %[[TOTAL:.*]] = arith.addf %[[SUM]], %[[SKIP]]
// CHECK:         %[[BELOW:.*]] = arith.cmpf ogt, %[[LOW]], %[[TOTAL]]
// CHECK:         %[[RAISED:.*]] = arith.select %[[BELOW]], %[[LOW]], %[[TOTAL]]
// CHECK:         %[[ABOVE:.*]] = arith.cmpf olt, %[[HIGH]], %[[RAISED]]
// CHECK:         %[[CLAMPED:.*]] = arith.select %[[ABOVE]], %[[HIGH]], %[[RAISED]]
// CHECK:         vector.store %[[CLAMPED]], %[[Y]]
func.func @bias_residual_and_activation(%x: tensor<1x2x8x16xf32>, %skip: tensor<1x1x8x16xf32>) -> tensor<1x1x8x16xf32> {
  %w = arith.constant dense<1.0> : tensor<1x2x1x1xf32>
  %bias = arith.constant dense<2.0> : tensor<1xf32>
  %y = "pattern.conv2d"(%x, %w, %bias, %skip) {activation = #pattern.clamp<-1.0 : f32, 6.0 : f32>,
    dilations = array<i64: 1, 1>, groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 1, 1>,
    pads = array<i64: 0, 0, 0, 0>, schedule = #tile, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x16xf32>, tensor<1x2x1x1xf32>, tensor<1xf32>, tensor<1x1x8x16xf32>) -> tensor<1x1x8x16xf32>
  return %y : tensor<1x1x8x16xf32>
}

// -----

// A layer of three threads is a loop of three turns; a table has the part of each.

#tile = #pattern.schedule<{algorithm = "elementwise", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 2 : i64, split = "rows", sums = 1 : i64, threads = 3 : i64}>

// CHECK-LABEL: memref.global "private" constant @elementwise_0.parts
// CHECK-SAME:    dense<[0, 2, 0, 5, 2, 4, 0, 5, 4, 6, 0, 5]>
// CHECK-LABEL: func.func @parts_of_a_parallel_layer
// CHECK-SAME:    (%[[X:.*]]: memref<960xf32>, %[[Y:.*]]: memref<960xf32>,
// CHECK:         %[[PARTS:.*]] = memref.get_global @elementwise_0.parts
// CHECK:         scf.parallel (%[[PART:.*]]) = (%{{.*}}) to (%c3{{.*}}) step
// CHECK:           %[[BOUND:.*]] = memref.load %[[PARTS]]
// CHECK:           %[[FIRST_TILE:.*]] = arith.index_cast %[[BOUND]]
// CHECK:           func.call @elementwise_0(%{{.*}}, %{{.*}}, %[[FIRST_TILE]],
func.func @parts_of_a_parallel_layer(%x: tensor<1x5x12x16xf32>) -> tensor<1x5x12x16xf32> {
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #tile} : (tensor<1x5x12x16xf32>) -> tensor<1x5x12x16xf32>
  return %y : tensor<1x5x12x16xf32>
}

// -----

// The time is taken before the first layer and after each; a constant or a reshape takes none.

// CHECK-LABEL: func.func @times_of_layers
// CHECK-SAME:    %[[TIMES:[a-z0-9]+]]: memref<3xi64>)
// CHECK-DAG:     %[[SECOND:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[FIRST:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[START:.*]] = arith.constant 0 : index
// CHECK:         %[[T0:.*]] = call @patc_timestamp()
// CHECK-NEXT:    memref.store %[[T0]], %[[TIMES]][%[[START]]]
// CHECK:         call @elementwise_0
// CHECK-NEXT:    %[[T1:.*]] = call @patc_timestamp()
// CHECK-NEXT:    memref.store %[[T1]], %[[TIMES]][%[[FIRST]]]
// CHECK:         call @gemv_0
// CHECK-NEXT:    %[[T2:.*]] = call @patc_timestamp()
// CHECK-NEXT:    memref.store %[[T2]], %[[TIMES]][%[[SECOND]]]
// CHECK-NEXT:    return
func.func @times_of_layers(%x: tensor<1x2x4x4xf32>) -> tensor<1x3xf32> {
  %w = arith.constant dense<1.0> : tensor<3x32xf32>
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %flat = tensor.collapse_shape %y [[0], [1, 2, 3]] : tensor<1x2x4x4xf32> into tensor<1x32xf32>
  %z = "pattern.linear"(%flat, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x32xf32>, tensor<3x32xf32>) -> tensor<1x3xf32>
  return %z : tensor<1x3xf32>
}

// -----

// A result goes straight to the caller's memory; one that is returned twice is copied once.

// CHECK-LABEL: func.func @result_in_the_callers_memory
// CHECK-SAME:    (%{{.*}}: memref<128xf32>, %[[Y:.*]]: memref<128xf32>, %[[FLAT:.*]]: memref<128xf32>,
// CHECK-NOT:     memref.alloc
// CHECK:         %[[SEEN_BY_KERNEL:.*]] = memref.reinterpret_cast %[[Y]]
// CHECK:         call @elementwise_0(%{{.*}}, %[[SEEN_BY_KERNEL]],
// CHECK:         memref.copy %[[Y]], %[[FLAT]]
// CHECK-NOT:     memref.copy
func.func @result_in_the_callers_memory(%x: tensor<1x1x8x16xf32>) -> (tensor<1x1x8x16xf32>, tensor<1x128xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x1x8x16xf32>) -> tensor<1x1x8x16xf32>
  %flat = tensor.collapse_shape %y [[0], [1, 2, 3]] : tensor<1x1x8x16xf32> into tensor<1x128xf32>
  return %y, %flat : tensor<1x1x8x16xf32>, tensor<1x128xf32>
}

// -----

// Only the halo of a result is written with a branch, and only once for a tile: above its plane, and below it.

#tile = #pattern.schedule<{algorithm = "elementwise", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 2 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>
#planar = #pattern.layout<{fill = "lowest", halo = array<i64: 1, 1, 1, 1>, phases = 1 : i64, plane = 320 : i64, row = 32 : i64}>

// CHECK-LABEL: func.func private @elementwise_0
// CHECK:         %[[FILL:.*]] = arith.constant dense<0xFF800000> : vector<16xf32>
// CHECK:         vector.store
// CHECK:         %[[IS_FIRST:.*]] = arith.cmpi eq, %[[TILE:.*]], %{{.*}}
// CHECK:         scf.if %[[IS_FIRST]] {
// CHECK-NEXT:      vector.store %[[FILL]]
// CHECK:         %[[IS_LAST:.*]] = arith.cmpi eq, %[[TILE]], %{{.*}}
// CHECK:         scf.if %[[IS_LAST]] {
// CHECK:           vector.store %[[FILL]]
// CHECK-NOT:     scf.if
func.func @halo_of_the_result(%x: tensor<1x2x8x16xf32>) -> tensor<1x2x8x16xf32> {
  %y = "pattern.activate"(%x) {activation = "none", schedule = #tile} : (tensor<1x2x8x16xf32>) -> tensor<1x2x8x16xf32, #planar>
  %z = "pattern.max_pool2d"(%y) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x16xf32, #planar>) -> tensor<1x2x8x16xf32>
  return %z : tensor<1x2x8x16xf32>
}
