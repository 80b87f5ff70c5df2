// RUN: patc-opt --pattern-demote=dtype=f16 --pattern-layout=target=aarch64-linux --pattern-schedule=target=aarch64-linux %s | filecheck %s

// A vector holds twice as many f16 as f32. Winograd's transforms would lose most of the bits, and linear layers sum in
// f32.

// CHECK-LABEL: func.func @lanes_of_the_element_type
// CHECK:         "pattern.relayout"
// CHECK-SAME:      lanes = 8 : i64, {{.*}} -> tensor<1x64x8x8xf16
// CHECK:         "pattern.conv2d"
// CHECK-NOT:       winograd
// CHECK-SAME:      lanes = 8 : i64
// CHECK:         "pattern.linear"
// CHECK-SAME:      lanes = 4 : i64
// CHECK:         "pattern.relayout"
// CHECK-SAME:      lanes = 4 : i64, {{.*}} -> tensor<1x3xf32>
func.func @lanes_of_the_element_type(%x: tensor<1x64x8x8xf32>, %w: tensor<64x64x3x3xf32>, %classes: tensor<3x4096xf32>)
    -> tensor<1x3xf32> {
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x64x8x8xf32>, tensor<64x64x3x3xf32>) -> tensor<1x64x8x8xf32>
  %flat = tensor.collapse_shape %y [[0], [1, 2, 3]] : tensor<1x64x8x8xf32> into tensor<1x4096xf32>
  %z = "pattern.linear"(%flat, %classes) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4096xf32>, tensor<3x4096xf32>) -> tensor<1x3xf32>
  return %z : tensor<1x3xf32>
}
