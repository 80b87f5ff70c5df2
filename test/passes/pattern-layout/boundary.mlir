// RUN: patc-opt --pattern-layout --split-input-file %s | filecheck %s

// What the caller gives and gets is row-major, and so is what a linear layer reads.

// CHECK-LABEL: func.func @argument_gets_one_relayout_for_all_windows
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<1x2x9x9xf32>, %[[W:[a-z0-9]+]]
// CHECK:         %[[PADDED:.*]] = "pattern.relayout"(%[[X]])
// CHECK-SAME:      (tensor<1x2x9x9xf32>) -> tensor<1x2x9x9xf32, #pattern.layout<
// CHECK-NOT:     pattern.relayout
// CHECK:         %[[A:.*]] = "pattern.conv2d"(%[[PADDED]], %[[W]])
// CHECK:         %[[B:.*]] = "pattern.conv2d"(%[[PADDED]], %[[W]], %[[X]])
// CHECK-SAME:      -> tensor<1x2x9x9xf32>
// CHECK:         "pattern.add"(%[[A]], %[[X]])
// CHECK-SAME:      -> tensor<1x2x9x9xf32>
func.func @argument_gets_one_relayout_for_all_windows(%x: tensor<1x2x9x9xf32>, %w: tensor<2x2x3x3xf32>)
    -> (tensor<1x2x9x9xf32>, tensor<1x2x9x9xf32>) {
  %a = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x9x9xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x9x9xf32>
  %b = "pattern.conv2d"(%x, %w, %x) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x9x9xf32>, tensor<2x2x3x3xf32>, tensor<1x2x9x9xf32>) -> tensor<1x2x9x9xf32>
  %c = "pattern.add"(%a, %x) {activation = "none"}
    : (tensor<1x2x9x9xf32>, tensor<1x2x9x9xf32>) -> tensor<1x2x9x9xf32>
  return %b, %c : tensor<1x2x9x9xf32>, tensor<1x2x9x9xf32>
}

// -----

// CHECK-LABEL: func.func @result_that_is_read_again
// CHECK:         %[[Y:.*]] = "pattern.activate"
// CHECK-SAME:      halo = array<i64: 1, 1, 1, 1>
// CHECK:         %[[Z:.*]] = "pattern.conv2d"(%[[Y]]
// CHECK:         %[[PACKED:.*]] = "pattern.relayout"(%[[Y]])
// CHECK-SAME:      -> tensor<1x2x9x9xf32>
// CHECK:         return %[[PACKED]], %[[Z]] : tensor<1x2x9x9xf32>, tensor<1x2x9x9xf32>
func.func @result_that_is_read_again(%x: tensor<1x2x9x9xf32>, %w: tensor<2x2x3x3xf32>)
    -> (tensor<1x2x9x9xf32>, tensor<1x2x9x9xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x9x9xf32>) -> tensor<1x2x9x9xf32>
  %z = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x9x9xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x9x9xf32>
  return %y, %z : tensor<1x2x9x9xf32>, tensor<1x2x9x9xf32>
}

// -----

// CHECK-LABEL: func.func @flattened_tensor
// CHECK:         %[[Y:.*]] = "pattern.activate"
// CHECK-SAME:      -> tensor<1x2x5x5xf32>
// CHECK-NEXT:    tensor.collapse_shape %[[Y]]
func.func @flattened_tensor(%x: tensor<1x2x5x5xf32>) -> tensor<1x50xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x5x5xf32>) -> tensor<1x2x5x5xf32>
  %flat = tensor.collapse_shape %y [[0], [1, 2, 3]] : tensor<1x2x5x5xf32> into tensor<1x50xf32>
  return %flat : tensor<1x50xf32>
}
