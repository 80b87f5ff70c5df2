// RUN: patc-opt --pattern-layout --pattern-schedule --split-input-file %s | filecheck %s

// Which algorithm a layer gets. Tiles are the cost model's business: nothing here depends on them.

// CHECK-LABEL: func.func @pattern_loops_for_sparse_weights
// CHECK:         "pattern.sparse_conv2d"
// CHECK-SAME:      cycles = {{[1-9][0-9]*}} : i64
// CHECK-SAME:      explanation = #pattern.explanation<{alternatives = [{{.*}}], bound = "{{[^"]+}}"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "{{pattern-direct|input-stationary}}"
// CHECK-SAME:      threads = 1
func.func @pattern_loops_for_sparse_weights(%x: tensor<1x2x8x8xf32>) -> tensor<1x1x8x8xf32> {
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

// CHECK-LABEL: func.func @dense_layers
// CHECK:         "pattern.relayout"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "elementwise"
// CHECK:         "pattern.conv2d"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "dense-direct"
// CHECK:         "pattern.conv2d"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "depthwise-direct"
// CHECK:         "pattern.linear"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "gemv"
func.func @dense_layers(%x: tensor<1x4x8x8xf32>, %w: tensor<4x2x3x3xf32>, %depthwise: tensor<4x1x3x3xf32>,
                        %classes: tensor<3x256xf32>) -> tensor<1x3xf32> {
  %a = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x4x8x8xf32>, tensor<4x2x3x3xf32>) -> tensor<1x4x8x8xf32>
  %b = "pattern.conv2d"(%a, %depthwise) {activation = "none", dilations = array<i64: 1, 1>, groups = 4 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x4x8x8xf32>, tensor<4x1x3x3xf32>) -> tensor<1x4x8x8xf32>
  %flat = tensor.collapse_shape %b [[0], [1, 2, 3]] : tensor<1x4x8x8xf32> into tensor<1x256xf32>
  %y = "pattern.linear"(%flat, %classes) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x256xf32>, tensor<3x256xf32>) -> tensor<1x3xf32>
  return %y : tensor<1x3xf32>
}

// -----

// CHECK-LABEL: func.func @layers_without_weights
// CHECK:         "pattern.activate"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "elementwise"
// CHECK:         "pattern.max_pool2d"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "pool"
// CHECK:         "pattern.avg_pool2d"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "pool"
// CHECK:         "pattern.add"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "elementwise"
// CHECK:         "pattern.avg_pool2d"
// CHECK-SAME:      schedule = #pattern.schedule<{algorithm = "global-pool"
func.func @layers_without_weights(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x1x1xf32> {
  %positive = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %max = "pattern.max_pool2d"(%positive) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %avg = "pattern.avg_pool2d"(%positive) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %sum = "pattern.add"(%max, %avg) {activation = "none"}
    : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %mean = "pattern.avg_pool2d"(%sum) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 8, 8>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x1x1xf32>
  return %mean : tensor<1x2x1x1xf32>
}
