// RUN: patc-opt --pattern-layout=target=spirv-vulkan --pattern-schedule=target=spirv-vulkan --pattern-map-to-gpu --split-input-file %s | filecheck %s

// The copy of the input into rows of whole vectors and the convolution are a launch each, on one arena.

// CHECK:       module attributes {gpu.container_module
// CHECK-LABEL: func.func @sparse
// CHECK-SAME:    %[[ARENA:[a-z0-9]+]]: memref<{{[0-9]+}}xi8>, %[[WEIGHTS:[a-z0-9]+]]: memref<{{[0-9]+}}xi8>)
// CHECK-SAME:    pattern.inputs = array<i64: {{[0-9]+}}>, pattern.outputs = array<i64: {{[0-9]+}}>
// CHECK:         %[[ACTIVATIONS:.*]] = memref.view %[[ARENA]]{{.*}} to memref<?xvector<4xf32>>
// CHECK:         gpu.launch_func @elementwise_0::@elementwise_0
// CHECK:         %[[VALUES:.*]] = memref.view %[[WEIGHTS]]{{.*}} to memref<?xvector<4xf32>>
// CHECK:         %[[INTEGERS:.*]] = memref.view %[[WEIGHTS]]{{.*}} to memref<?xi32>
// CHECK:         gpu.launch_func @pattern_direct_0::@pattern_direct_0
// CHECK-SAME:      %[[ACTIVATIONS]] : memref<?xvector<4xf32>>
// CHECK-NOT:     pattern.{{sparse|relayout}}

// One loop a pattern, each without a branch; a kernel's weights are one load, and every load and store is aligned.

// CHECK-LABEL: gpu.module @pattern_direct_0
// CHECK:         gpu.func @pattern_direct_0({{.*}}) kernel attributes {known_block_size = array<i32: {{64|128}}, 1, 1>}
// CHECK:           %[[FIRST:.*]] = scf.for
// CHECK-NOT:         scf.if
// CHECK:             %[[TAPS:.*]] = memref.load {{.*}} : memref<?xvector<4xf32>>
// CHECK:             vector.extract %[[TAPS]][0]
// CHECK:             vector.shuffle
// CHECK:             math.fma
// CHECK:             scf.yield
// CHECK:           scf.for {{.*}} iter_args({{.*}} = %[[FIRST]]
// CHECK-NOT:         scf.if
// CHECK:             scf.yield
// CHECK:           scf.if
// CHECK:             memref.store {{.*}} : memref<?xvector<4xf32>>
// CHECK:           gpu.return
func.func @sparse(%x: tensor<1x2x8x8xf32>) -> tensor<1x1x8x8xf32> {
  %values = arith.constant dense<[[1., 2., 3., 4.], [5., 6., 7., 8.]]> : tensor<2x4xf32>
  %index = arith.constant dense<[0, 1]> : tensor<2xi16>
  %offset = arith.constant dense<[0, 2]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1, 2]]> : tensor<1x3xi16>
  %reorder = arith.constant dense<[0]> : tensor<1xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>, tensor<2x4xf32>, tensor<2xi16>, tensor<2xi32>,
    tensor<1x3xi16>, tensor<1xi16>) -> tensor<1x1x8x8xf32>
  return %y : tensor<1x1x8x8xf32>
}

// -----

// Layers of different sizes share a kernel.

// CHECK-LABEL: func.func @sizes_are_numbers
// CHECK:         gpu.launch_func @pool_0::@pool_0
// CHECK:         gpu.launch_func @pool_0::@pool_0
// CHECK:         gpu.module @pool_0
// CHECK-NOT:     gpu.module @pool_1
func.func @sizes_are_numbers(%x: tensor<1x4x32x32xf32>) -> tensor<1x4x8x8xf32> {
  %a = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 2, 2>,
    pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 2, 2>} : (tensor<1x4x32x32xf32>) -> tensor<1x4x16x16xf32>
  %b = "pattern.max_pool2d"(%a) {dilations = array<i64: 1, 1>, kernel = array<i64: 2, 2>,
    pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 2, 2>} : (tensor<1x4x16x16xf32>) -> tensor<1x4x8x8xf32>
  return %b : tensor<1x4x8x8xf32>
}

// -----

// The threads of a workgroup add up a mean, and the features of a fully connected layer, in memory that they share.

// CHECK-LABEL: func.func @sums_of_a_workgroup
// CHECK:         gpu.launch_func @global_pool_0::@global_pool_0
// CHECK:         gpu.launch_func @gemv_0::@gemv_0
// CHECK-LABEL: gpu.module @global_pool_0
// CHECK:         memref.alloc() : memref<64xf32, #gpu.address_space<workgroup>>
// CHECK:         gpu.barrier
// CHECK-LABEL: gpu.module @gemv_0
// CHECK:         memref.alloc() : memref<64xvector<4xf32>, #gpu.address_space<workgroup>>
// CHECK:         gpu.barrier
func.func @sums_of_a_workgroup(%x: tensor<1x8x7x7xf32>) -> tensor<1x4xf32> {
  %w = arith.constant dense<0.5> : tensor<4x8xf32>
  %mean = "pattern.avg_pool2d"(%x) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 7, 7>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x8x7x7xf32>) -> tensor<1x8x1x1xf32>
  %flat = tensor.collapse_shape %mean [[0], [1, 2, 3]] : tensor<1x8x1x1xf32> into tensor<1x8xf32>
  %y = "pattern.linear"(%flat, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x8xf32>, tensor<4x8xf32>) -> tensor<1x4xf32>
  return %y : tensor<1x4xf32>
}

// -----

// A constant that is returned is copied from the weights.

// CHECK-LABEL: func.func @returns_a_constant
// CHECK:         memref.view %{{[a-z0-9]+}}{{.*}} to memref<?xf32>
// CHECK:         gpu.launch_func @elementwise_0::@elementwise_0
func.func @returns_a_constant(%x: tensor<1x1x1x3xf32>) -> tensor<1x1x1x3xf32> {
  %c = arith.constant dense<[[[[1.0, 2.0, 3.0]]]]> : tensor<1x1x1x3xf32>
  return %c : tensor<1x1x1x3xf32>
}
