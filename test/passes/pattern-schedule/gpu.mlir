// RUN: patc-opt --pattern-layout=target=spirv-vulkan --pattern-schedule=target=spirv-vulkan %s | filecheck %s

// Threads of a workgroup divide pixels; where there are few of them, also the channels that are summed.

// CHECK: "pattern.conv2d"
// CHECK-SAME: bound = "{{threads|multiply-adds}}", considered = {{[1-9][0-9]*}} : i64
// CHECK-SAME: schedule = #pattern.schedule<{algorithm = "dense-direct", columns = 4 : i64
// CHECK-SAME: lanes = 4 : i64
// CHECK-SAME: split = "pixels", sums = {{[248]}} : i64, threads = {{64|128}} : i64}>
// CHECK: "pattern.avg_pool2d"
// CHECK-SAME: schedule = #pattern.schedule<{algorithm = "global-pool"
func.func @few_pixels(%x: tensor<1x256x4x4xf32>, %w: tensor<8x256x3x3xf32>) -> tensor<1x8x1x1xf32> {
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x256x4x4xf32>, tensor<8x256x3x3xf32>) -> tensor<1x8x4x4xf32>
  %z = "pattern.avg_pool2d"(%y) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 4, 4>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x8x4x4xf32>) -> tensor<1x8x1x1xf32>
  return %z : tensor<1x8x1x1xf32>
}
