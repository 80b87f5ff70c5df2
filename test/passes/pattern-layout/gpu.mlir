// RUN: patc-opt --pattern-layout=target=spirv-vulkan %s | filecheck %s

// On a GPU rows start on a vector behind their left halo, and all columns of a row are together also for a stride of 2.

// CHECK: "pattern.activate"
// CHECK-SAME: halo = array<i64: 1, 4, 1, 1>, phases = 1 : i64, plane = 208 : i64, row = 20 : i64
// CHECK: "pattern.conv2d"
// CHECK-SAME: -> tensor<1x2x4x7xf32>
func.func @stride_2(%x: tensor<1x2x7x14xf32>, %w: tensor<2x2x3x3xf32>) -> tensor<1x2x4x7xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x7x14xf32>) -> tensor<1x2x7x14xf32>
  %z = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
    : (tensor<1x2x7x14xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x4x7xf32>
  return %z : tensor<1x2x4x7xf32>
}
