// RUN: patc-opt --cse %s | filecheck %s --check-prefix=CSE
// RUN: patc-opt --canonicalize %s | filecheck %s --check-prefix=DCE

// Pattern ops are pure: equal ones merge, unused ones go.

// CSE-LABEL: @merges_equal_ops
func.func @merges_equal_ops(%x: tensor<1x8x6x6xf32>) -> tensor<1x4x6x6xf32> {
  // CSE: %[[W:.*]] = "pattern.parameter"
  // CSE-NOT: "pattern.parameter"
  // CSE: %[[Y:.*]] = "pattern.conv2d"
  // CSE-NOT: "pattern.conv2d"
  // CSE: "pattern.add"(%[[Y]], %[[Y]])
  %w = "pattern.parameter"() {name = "w"} : () -> tensor<4x8x1x1xf32>
  %v = "pattern.parameter"() {name = "w"} : () -> tensor<4x8x1x1xf32>
  %a = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x8x6x6xf32>, tensor<4x8x1x1xf32>) -> tensor<1x4x6x6xf32>
  %b = "pattern.conv2d"(%x, %v) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x8x6x6xf32>, tensor<4x8x1x1xf32>) -> tensor<1x4x6x6xf32>
  %y = "pattern.add"(%a, %b) {activation = "none"}
    : (tensor<1x4x6x6xf32>, tensor<1x4x6x6xf32>) -> tensor<1x4x6x6xf32>
  return %y : tensor<1x4x6x6xf32>
}

// CSE-LABEL: @keeps_different_activations_apart
func.func @keeps_different_activations_apart(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  // CSE-COUNT-2: "pattern.activate"
  %a = "pattern.activate"(%x) {activation = "none"} : (tensor<4xf32>) -> tensor<4xf32>
  %b = "pattern.activate"(%x) {activation = "relu"} : (tensor<4xf32>) -> tensor<4xf32>
  return %a, %b : tensor<4xf32>, tensor<4xf32>
}

// DCE-LABEL: @drops_unused_ops
func.func @drops_unused_ops(%x: tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32> {
  // DCE-NEXT: return
  %w = "pattern.parameter"() {name = "w"} : () -> tensor<4x8xf32>
  %a = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32>
  %b = "pattern.max_pool2d"(%a) {dilations = array<i64: 1, 1>, kernel = array<i64: 2, 2>,
    pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 2, 2>} : (tensor<1x8x6x6xf32>) -> tensor<1x8x3x3xf32>
  return %x : tensor<1x8x6x6xf32>
}
