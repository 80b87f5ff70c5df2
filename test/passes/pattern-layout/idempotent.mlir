// RUN: patc-opt --pattern-layout %s > %t.once
// RUN: patc-opt --pattern-layout --pattern-layout %s | diff %t.once -
// RUN: filecheck --input-file=%t.once %s

// A second run changes nothing, neither where layouts differ nor where they are packed.

#planar = #pattern.layout<{fill = "zero", halo = array<i64: 3, 3, 3, 3>, phases = 1 : i64, plane = 512 : i64, row = 32 : i64}>

// CHECK-LABEL: func.func @many_users
// CHECK-COUNT-2: pattern.relayout
func.func @many_users(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x3x3xf32>)
    -> (tensor<1x2x8x8xf32>, tensor<1x2x4x4xf32>, tensor<1x128xf32>) {
  %y = "pattern.add"(%x, %x) {activation = "none"}
    : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %a = "pattern.max_pool2d"(%y) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %b = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x4x4xf32>
  %flat = tensor.collapse_shape %y [[0], [1, 2, 3]] : tensor<1x2x8x8xf32> into tensor<1x128xf32>
  return %a, %b, %flat : tensor<1x2x8x8xf32>, tensor<1x2x4x4xf32>, tensor<1x128xf32>
}

// CHECK-LABEL: func.func @given_layout_stays
// CHECK:         halo = array<i64: 3, 3, 3, 3>
func.func @given_layout_stays(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x3x3xf32>) -> tensor<1x2x8x8xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32, #planar>
  %z = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32, #planar>, tensor<2x2x3x3xf32>) -> tensor<1x2x8x8xf32>
  return %z : tensor<1x2x8x8xf32>
}
