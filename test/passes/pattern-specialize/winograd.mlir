// RUN: patc-opt --pattern-layout=target=x86-64-v4 --pattern-specialize --split-input-file %s | filecheck %s

// One thread: one kernel does all three stages of each band; another one computes the layer again if an output is not
// finite. The transformed weights are constants; tiles lie along vectors, and the outputs that do not exist (rows 6 and 7
// of the last row of tiles) are not stored.

#tile = #pattern.schedule<{algorithm = "winograd", columns = 16 : i64, filters = 2 : i64, lanes = 16 : i64, rows = 8 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>
#input = #pattern.layout<{fill = "zero", halo = array<i64: 1, 1, 1, 1>, phases = 1 : i64, plane = 256 : i64, row = 32 : i64}>

// CHECK-LABEL: func.func @three_stages_in_one_kernel
// CHECK:         %[[WEIGHTS:.*]] = memref.get_global @constant.winograd2 : memref<144xf32>
// CHECK:         %[[TRANSFORMED:.*]] = memref.alloc() : memref<1184xf32>
// CHECK:         %[[PRODUCTS:.*]] = memref.alloc() : memref<1184xf32>
// CHECK:         call @winograd_0(
// CHECK:         call @winograd_repair_0(
// CHECK-LABEL: func.func private @winograd_0
// CHECK-SAME:    (%[[X:[a-z0-9]+]]: {{[^,]*}}, %[[V:[a-z0-9]+]]: {{[^,]*}}, %[[U:[a-z0-9]+]]: {{[^,]*}}, %[[M:[a-z0-9]+]]: {{[^,]*}}, %[[STATUS:[a-z0-9]+]]: {{[^,]*}}, %[[Y:[a-z0-9]+]]: {{[^,]*}}, %[[BIAS:[a-z0-9]+]]: {{[^,]*}}, %[[FIRST:[a-z0-9]+]]: index, %[[LAST:[a-z0-9]+]]: index,
// CHECK:         scf.for %[[BAND:.*]] = %[[FIRST]] to %[[LAST]]
// CHECK:           scf.for %[[CHANNEL:.*]] =
// CHECK-COUNT-6:     vector.load %[[X]]
// CHECK:             vector.shuffle
// CHECK-COUNT-36:    vector.store %{{.*}}, %[[V]]
// CHECK:           scf.for %[[POSITION:.*]] =
// CHECK:             scf.for %[[BLOCK:.*]] =
// CHECK:               %[[SUMS:.*]]:2 = scf.for
// CHECK:                 %[[TILES:.*]] = vector.load %[[V]]
// CHECK:                 memref.load %[[U]]
// CHECK:                 math.fma %{{.*}}, %[[TILES]]
// CHECK:                 memref.load %[[U]]
// CHECK:                 math.fma %{{.*}}, %[[TILES]]
// CHECK:               vector.store %[[SUMS]]#0, %[[M]]
// CHECK:               vector.store %[[SUMS]]#1, %[[M]]
// CHECK:           scf.for %[[FILTER:[a-z0-9]+]] =
// CHECK-COUNT-36:    vector.load %[[M]]
// CHECK:             memref.load %[[BIAS]][%[[FILTER]]]
// CHECK-COUNT-2:     vector.store %{{.*}}, %[[Y]]
// CHECK:             scf.if
// CHECK-COUNT-2:       vector.store %{{.*}}, %[[Y]]
// CHECK:         arith.cmpf uno
// CHECK:         scf.if
// CHECK:           memref.store %{{.*}}, %[[STATUS]]
// CHECK-LABEL: func.func private @winograd_repair_0
// CHECK-SAME:    (%[[X:[a-z0-9]+]]: {{[^,]*}}, %[[U:[a-z0-9]+]]: {{[^,]*}}, %{{[^,]*}}, %{{[^,]*}}, %[[STATUS:[a-z0-9]+]]:
// CHECK-SAME:    llvm.minsize
// CHECK:         %[[BAD:.*]] = memref.load %[[STATUS]]
// CHECK:         arith.cmpf une, %[[BAD]]
// CHECK:         scf.if
func.func @three_stages_in_one_kernel(%x: tensor<1x2x6x16xf32, #input>) -> tensor<1x2x6x16xf32> {
  %w = arith.constant dense<1.0> : tensor<2x2x3x3xf32>
  %bias = arith.constant dense<2.0> : tensor<2xf32>
  %y = "pattern.conv2d"(%x, %w, %bias) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 1, 1, 1, 1>, schedule = #tile,
    strides = array<i64: 1, 1>} : (tensor<1x2x6x16xf32, #input>, tensor<2x2x3x3xf32>, tensor<2xf32>) -> tensor<1x2x6x16xf32>
  return %y : tensor<1x2x6x16xf32>
}

// -----

// Two threads and a single band: they share each stage, channels first, then positions, then filters.

#tile = #pattern.schedule<{algorithm = "winograd", columns = 16 : i64, filters = 2 : i64, lanes = 16 : i64, rows = 8 : i64, split = "rows", sums = 1 : i64, threads = 2 : i64}>
#input = #pattern.layout<{fill = "zero", halo = array<i64: 1, 1, 1, 1>, phases = 1 : i64, plane = 320 : i64, row = 32 : i64}>

// CHECK-DAG:   @winograd_input_0.parts{{.*}} = dense<[0, 1, 0, 2, 0, 1, 2, 4]>
// CHECK-DAG:   @winograd_products_0.parts{{.*}} = dense<[0, 18, 0, 1, 18, 36, 0, 1]>
// CHECK-DAG:   @winograd_output_0.parts{{.*}} = dense<[0, 1, 0, 1, 0, 1, 1, 2]>
// CHECK-LABEL: func.func @threads_share_the_stages_of_one_band
// CHECK:         scf.parallel
// CHECK:           func.call @winograd_input_0
// CHECK:         scf.parallel
// CHECK:           func.call @winograd_products_0
// CHECK:         scf.parallel
// CHECK:           func.call @winograd_output_0
// CHECK:         scf.parallel
// CHECK:           func.call @winograd_repair_0
// CHECK-NOT:     scf.parallel
// CHECK:         return
func.func @threads_share_the_stages_of_one_band(%x: tensor<1x4x8x16xf32, #input>) -> tensor<1x2x8x16xf32> {
  %w = arith.constant dense<1.0> : tensor<2x4x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, schedule = #tile,
    strides = array<i64: 1, 1>} : (tensor<1x4x8x16xf32, #input>, tensor<2x4x3x3xf32>) -> tensor<1x2x8x16xf32>
  return %y : tensor<1x2x8x16xf32>
}

// -----

// Two threads and two bands: each thread has a band and memory of its own, twice 592 elements.

#tile = #pattern.schedule<{algorithm = "winograd", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 4 : i64, split = "rows", sums = 1 : i64, threads = 2 : i64}>
#input = #pattern.layout<{fill = "zero", halo = array<i64: 1, 1, 1, 1>, phases = 1 : i64, plane = 320 : i64, row = 32 : i64}>

// CHECK:       @winograd_0.parts{{.*}} = dense<[0, 1, 0, 1, 1, 2, 0, 1]>
// CHECK-LABEL: func.func @threads_compute_bands_of_their_own
// CHECK-COUNT-2: memref.alloc() : memref<1184xf32>
// CHECK:         scf.parallel
// CHECK:           func.call @winograd_0
// CHECK:         scf.parallel
// CHECK:           func.call @winograd_repair_0
// CHECK-NOT:     scf.parallel
// CHECK:         return
func.func @threads_compute_bands_of_their_own(%x: tensor<1x1x8x16xf32, #input>) -> tensor<1x1x8x16xf32> {
  %w = arith.constant dense<1.0> : tensor<1x1x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, schedule = #tile,
    strides = array<i64: 1, 1>} : (tensor<1x1x8x16xf32, #input>, tensor<1x1x3x3xf32>) -> tensor<1x1x8x16xf32>
  return %y : tensor<1x1x8x16xf32>
}

// -----

// Stride 2: the phases of the input are transformed one after the other, 6 or 7 rows to as many lines of positions. The
// last positions have products of those only whose part of the kernel has 4 taps.

#tile = #pattern.schedule<{algorithm = "winograd", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 4 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>
#input = #pattern.layout<{fill = "zero", halo = array<i64: 3, 3, 3, 3>, phases = 2 : i64, plane = 896 : i64, row = 32 : i64}>

// CHECK-LABEL: func.func private @winograd_0
// CHECK-SAME:    (%[[X:[a-z0-9]+]]: {{[^,]*}}, %[[V:[a-z0-9]+]]: {{[^,]*}}, %[[U:[a-z0-9]+]]: {{[^,]*}}, %[[M:[a-z0-9]+]]: {{[^,]*}}, %{{[^,]*}}, %[[Y:[a-z0-9]+]]: {{[^,]*}},
// CHECK-DAG:     %[[C1:.*]] = arith.constant 1 : index
// CHECK-DAG:     %[[C2:.*]] = arith.constant 2 : index
// CHECK-DAG:     %[[C3:.*]] = arith.constant 3 : index
// CHECK-DAG:     %[[C4:.*]] = arith.constant 4 : index
// CHECK-DAG:     %[[C7:.*]] = arith.constant 7 : index
// CHECK-COUNT-42:  vector.store %{{.*}}, %[[V]]
// CHECK:         scf.for
// CHECK-COUNT-49:  vector.store %{{.*}}, %[[V]]
// CHECK:         scf.for
// CHECK-COUNT-42:  vector.store %{{.*}}, %[[V]]
// CHECK:         scf.for
// CHECK-COUNT-36:  vector.store %{{.*}}, %[[V]]
// CHECK:         scf.for %[[POSITION:.*]] =
// CHECK:           %[[LINE:.*]] = arith.divui %[[POSITION]], %[[C7]]
// CHECK:           %[[SHIFT:.*]] = arith.remui %[[POSITION]], %[[C7]]
// CHECK:           %[[FIRST:.*]] = arith.select %{{.*}}, %[[C1]], %{{.*}}
// CHECK:           %[[OTHERS:.*]] = arith.select %{{.*}}, %[[C3]], %[[C4]]
// CHECK:           %[[END:.*]] = arith.select %{{.*}}, %[[C2]], %[[OTHERS]]
// CHECK:           scf.for %{{.*}} = %[[FIRST]] to %[[END]]
// CHECK:             vector.load %[[V]]
// CHECK:           vector.store %{{.*}}, %[[M]]
// CHECK-COUNT-49:  vector.load %[[M]]
// CHECK:           vector.store %{{.*}}, %[[Y]]
func.func @stride_two(%x: tensor<1x1x8x48xf32, #input>) -> tensor<1x1x4x24xf32> {
  %w = arith.constant dense<1.0> : tensor<1x1x7x7xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 3, 3, 3, 3>, schedule = #tile,
    strides = array<i64: 2, 2>} : (tensor<1x1x8x48xf32, #input>, tensor<1x1x7x7xf32>) -> tensor<1x1x4x24xf32>
  return %y : tensor<1x1x4x24xf32>
}
