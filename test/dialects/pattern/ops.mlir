// RUN: patc-opt %s | patc-opt | filecheck %s

// Every op survives printing and parsing.

// CHECK-LABEL: @parameter
func.func @parameter() -> tensor<64x64x3x3xf32> {
  // CHECK: "pattern.parameter"() {name = "layer1.0.conv1.weight"} : () -> tensor<64x64x3x3xf32>
  %w = "pattern.parameter"() {name = "layer1.0.conv1.weight"} : () -> tensor<64x64x3x3xf32>
  return %w : tensor<64x64x3x3xf32>
}

// CHECK-LABEL: @conv2d_with_bias_and_residual
// CHECK-SAME: %[[X:[a-z0-9]+]]: tensor<1x8x6x6xf32>, %[[W:[a-z0-9]+]]: {{[^,]*}}, %[[B:[a-z0-9]+]]: {{[^,]*}}, %[[R:[a-z0-9]+]]:
func.func @conv2d_with_bias_and_residual(%x: tensor<1x8x6x6xf32>, %w: tensor<4x4x3x3xf32>, %b: tensor<4xf32>,
                                         %r: tensor<1x4x3x3xf32>) -> tensor<1x4x3x3xf32> {
  // CHECK: "pattern.conv2d"(%[[X]], %[[W]], %[[B]], %[[R]])
  // CHECK-SAME: activation = "relu", dilations = array<i64: 1, 1>, groups = 2 : i64
  // CHECK-SAME: operandSegmentSizes = array<i32: 1, 1, 1, 1>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>
  %y = "pattern.conv2d"(%x, %w, %b, %r) {activation = "relu", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 1>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
    : (tensor<1x8x6x6xf32>, tensor<4x4x3x3xf32>, tensor<4xf32>, tensor<1x4x3x3xf32>) -> tensor<1x4x3x3xf32>
  return %y : tensor<1x4x3x3xf32>
}

// CHECK-LABEL: @conv2d_with_residual_only
func.func @conv2d_with_residual_only(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x1x1xf32>,
                                     %r: tensor<1x4x6x6xf32>) -> tensor<1x4x6x6xf32> {
  // CHECK: operandSegmentSizes = array<i32: 1, 1, 0, 1>
  %y = "pattern.conv2d"(%x, %w, %r) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x8x6x6xf32>, tensor<4x8x1x1xf32>, tensor<1x4x6x6xf32>) -> tensor<1x4x6x6xf32>
  return %y : tensor<1x4x6x6xf32>
}

// CHECK-LABEL: @sparse_conv2d
func.func @sparse_conv2d(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
                         %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>,
                         %b: tensor<4xf32>) -> tensor<1x4x6x6xf32> {
  // CHECK: "pattern.sparse_conv2d"
  // CHECK-SAME: format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>
  // CHECK-SAME: (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>, tensor<4x3xi16>, tensor<4xi16>, tensor<4xf32>)
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder, %b) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>, tensor<4xf32>) -> tensor<1x4x6x6xf32>
  return %y : tensor<1x4x6x6xf32>
}

// CHECK-LABEL: @sparse_conv2d_of_kernels_of_nine_channels
func.func @sparse_conv2d_of_kernels_of_nine_channels(
    %x: tensor<1x20x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>, %offset: tensor<5xi32>,
    %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) -> tensor<1x4x6x6xf32> {
  // CHECK: "pattern.sparse_conv2d"
  // CHECK-SAME: format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 480>>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 480>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x20x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return %y : tensor<1x4x6x6xf32>
}

// CHECK-LABEL: @linear
func.func @linear(%x: tensor<2x8xf32>, %w: tensor<4x8xf32>, %b: tensor<4xf32>) -> tensor<2x4xf32> {
  // CHECK: "pattern.linear"(%{{.*}}, %{{.*}}, %{{.*}}) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0>}
  %y = "pattern.linear"(%x, %w, %b) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0>}
    : (tensor<2x8xf32>, tensor<4x8xf32>, tensor<4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// CHECK-LABEL: @pools
func.func @pools(%x: tensor<1x8x6x6xf32>) -> (tensor<1x8x3x3xf32>, tensor<1x8x1x1xf32>) {
  // CHECK: "pattern.max_pool2d"(%{{.*}}) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
  %y = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>} : (tensor<1x8x6x6xf32>) -> tensor<1x8x3x3xf32>
  // CHECK: "pattern.avg_pool2d"(%{{.*}}) {count_include_pad = false
  %z = "pattern.avg_pool2d"(%x) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 6, 6>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x8x1x1xf32>
  return %y, %z : tensor<1x8x3x3xf32>, tensor<1x8x1x1xf32>
}

// CHECK-LABEL: @elementwise
func.func @elementwise(%x: tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32> {
  // CHECK: %[[SUM:.*]] = "pattern.add"(%[[X:.*]], %[[X]]) {activation = "relu"}
  %y = "pattern.add"(%x, %x) {activation = "relu"}
    : (tensor<1x8x6x6xf32>, tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32>
  // CHECK: "pattern.activate"(%[[SUM]]) {activation = #pattern.clamp
  %z = "pattern.activate"(%y) {activation = #pattern.clamp<0.0 : f32, 6.0 : f32>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32>
  return %z : tensor<1x8x6x6xf32>
}

// CHECK-LABEL: @scale
func.func @scale(%x: tensor<1x8x6x6xf32>, %gate: tensor<1x8x1x1xf32>) -> tensor<1x8x6x6xf32> {
  // CHECK: "pattern.multiply"(%{{.*}}, %{{.*}}) {activation = #pattern.activation<"leaky_relu", [
  %y = "pattern.multiply"(%x, %gate) {activation = #pattern.activation<"leaky_relu", [1.0e-01 : f32]>}
    : (tensor<1x8x6x6xf32>, tensor<1x8x1x1xf32>) -> tensor<1x8x6x6xf32>
  // CHECK: {activation = #pattern.activation<"leaky_relu", [array<f32: 1.000000e+00,
  %z = "pattern.activate"(%y)
    {activation = #pattern.activation<"leaky_relu", [array<f32: 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0>]>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32>
  return %z : tensor<1x8x6x6xf32>
}

// CHECK-LABEL: @resample
func.func @resample(%x: tensor<1x2x3x4xf32>, %i: tensor<1x6xi32>, %j: tensor<2x8xi32>, %w: tensor<2x8xf32>,
                    %r: tensor<1x2x1x1xf32>) -> tensor<1x2x6x8xf32> {
  // CHECK: "pattern.resample"(%{{.*}}) {activation = "relu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 1, 1>}
  %y = "pattern.resample"(%x, %i, %j, %w, %r)
    {activation = "relu", operandSegmentSizes = array<i32: 1, 1, 1, 0, 1, 1>}
    : (tensor<1x2x3x4xf32>, tensor<1x6xi32>, tensor<2x8xi32>, tensor<2x8xf32>, tensor<1x2x1x1xf32>)
    -> tensor<1x2x6x8xf32>
  return %y : tensor<1x2x6x8xf32>
}

// CHECK-LABEL: @depth_to_space
func.func @depth_to_space(%x: tensor<1x12x3x4xf32>) -> tensor<1x2x9x8xf32> {
  // CHECK: "pattern.depth_to_space"(%{{.*}}) {activation = "relu", mode = "CRD", steps = array<i64: 3, 2>}
  %y = "pattern.depth_to_space"(%x) {activation = "relu", mode = "CRD", steps = array<i64: 3, 2>}
    : (tensor<1x12x3x4xf32>) -> tensor<1x2x9x8xf32>
  return %y : tensor<1x2x9x8xf32>
}

// CHECK-LABEL: @relayout
func.func @relayout(%x: tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32> {
  // CHECK: "pattern.relayout"(%{{.*}}) : (tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32, #pattern.layout<{fill = "zero",
  %y = "pattern.relayout"(%x) : (tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32, #pattern.layout<{fill = "zero",
    halo = array<i64: 1, 1, 1, 1>, phases = 1 : i64, plane = 64 : i64, row = 8 : i64}>>
  // CHECK: "pattern.relayout"(%{{.*}}) : (tensor<1x8x6x6xf32, #pattern.layout<{{.*}}>>) -> tensor<1x8x6x6xf32>
  %z = "pattern.relayout"(%y) : (tensor<1x8x6x6xf32, #pattern.layout<{fill = "zero",
    halo = array<i64: 1, 1, 1, 1>, phases = 1 : i64, plane = 64 : i64, row = 8 : i64}>>) -> tensor<1x8x6x6xf32>
  return %z : tensor<1x8x6x6xf32>
}

// CHECK-LABEL: @sparse_linear
func.func @sparse_linear(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x2xi16>, %reorder: tensor<4xi16>) -> tensor<2x4xf32> {
  // CHECK: "pattern.sparse_linear"
  // CHECK-SAME: format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27>>
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>} : (tensor<2x20xf32>, tensor<9x4xf32>,
    tensor<9xi16>, tensor<5xi32>, tensor<4x2xi16>, tensor<4xi16>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}
