// RUN: patc-opt --pattern-layout --split-input-file %s | filecheck %s

// CHECK-LABEL: func.func @halo_holds_the_pads_of_the_user
// CHECK:         %[[X:.*]] = "pattern.relayout"(%{{.*}}) {{.*}} halo = array<i64: 0, 0, 0, 0>
// CHECK:         %[[Y:.*]] = "pattern.conv2d"(%[[X]], %{{.*}}) {{.*}} -> tensor<1x2x9x9xf32, {{.*}} halo = array<i64: 1, 2, 3, 4>
// CHECK:         %[[Z:.*]] = "pattern.conv2d"(%[[Y]], %{{.*}}) {{.*}} -> tensor<1x2x11x13xf32>
// CHECK:         return %[[Z]]
func.func @halo_holds_the_pads_of_the_user(%x: tensor<1x2x9x9xf32>, %w: tensor<2x2x3x3xf32>) -> tensor<1x2x11x13xf32> {
  %pointwise = arith.constant dense<1.0> : tensor<2x2x1x1xf32>
  %y = "pattern.conv2d"(%x, %pointwise) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x9x9xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x9x9xf32>
  %z = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 2, 3, 4>, strides = array<i64: 1, 1>}
    : (tensor<1x2x9x9xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x11x13xf32>
  return %z : tensor<1x2x11x13xf32>
}

// -----

// CHECK-LABEL: func.func @halo_is_the_largest_of_all_users
// CHECK:         %[[Y:.*]] = "pattern.activate"
// CHECK-SAME:      halo = array<i64: 2, 1, 2, 1>, phases = 1
// CHECK-NOT:     pattern.relayout
// CHECK:         "pattern.conv2d"(%[[Y]]
// CHECK:         "pattern.conv2d"(%[[Y]]
func.func @halo_is_the_largest_of_all_users(%x: tensor<1x2x9x9xf32>, %w: tensor<2x2x3x3xf32>, %tall: tensor<2x2x5x1xf32>)
    -> (tensor<1x2x9x9xf32>, tensor<1x2x9x9xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x9x9xf32>) -> tensor<1x2x9x9xf32>
  %a = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x9x9xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x9x9xf32>
  %b = "pattern.conv2d"(%y, %tall) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 2, 0, 2, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x9x9xf32>, tensor<2x2x5x1xf32>) -> tensor<1x2x9x9xf32>
  return %a, %b : tensor<1x2x9x9xf32>, tensor<1x2x9x9xf32>
}

// -----

// CHECK-LABEL: func.func @two_phases_where_all_users_have_stride_2
// CHECK:         "pattern.activate"
// CHECK-SAME:      phases = 2
// CHECK-NOT:     pattern.relayout
func.func @two_phases_where_all_users_have_stride_2(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x3x3xf32>,
                                                    %shortcut: tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %a = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x4x4xf32>
  %b = "pattern.conv2d"(%y, %shortcut, %a) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 2, 2>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x1x1xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %b : tensor<1x2x4x4xf32>
}

// -----

// The horizontal stride decides.

// CHECK-LABEL: func.func @one_phase_where_strides_differ
// CHECK:         %[[MIXED:.*]] = "pattern.activate"
// CHECK-SAME:      phases = 1
// CHECK-NOT:     pattern.relayout
// CHECK:         %[[VERTICAL:.*]] = "pattern.conv2d"(%[[MIXED]]
// CHECK-SAME:      -> tensor<1x2x8x8xf32, {{.*}} phases = 1
// CHECK:         "pattern.conv2d"(%[[VERTICAL]]
func.func @one_phase_where_strides_differ(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x3x3xf32>)
    -> (tensor<1x2x4x4xf32>, tensor<1x2x4x8xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %a = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x8x8xf32>
  %b = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x4x4xf32>
  %c = "pattern.conv2d"(%a, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 1>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x4x8xf32>
  return %b, %c : tensor<1x2x4x4xf32>, tensor<1x2x4x8xf32>
}

// -----

// Additions, activations and residuals read whatever layout a value has for its other users.

// CHECK-LABEL: func.func @flexible_users_take_any_layout
// CHECK:         %[[Y:.*]] = "pattern.activate"
// CHECK-SAME:      halo = array<i64: 1, 1, 1, 1>
// CHECK-NOT:     pattern.relayout
// CHECK:         "pattern.conv2d"(%[[Y]], %{{.*}}, %[[Y]])
// CHECK:         "pattern.add"(%{{.*}}, %[[Y]])
// CHECK-SAME:      -> tensor<1x2x8x8xf32>
func.func @flexible_users_take_any_layout(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x3x3xf32>) -> tensor<1x2x8x8xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %a = "pattern.conv2d"(%y, %w, %y) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>, tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %b = "pattern.add"(%a, %y) {activation = "none"}
    : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %b : tensor<1x2x8x8xf32>
}
