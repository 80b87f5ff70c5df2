// RUN: patc-opt --pattern-encode %s > %t && patc-opt %s | diff - %t
// RUN: patc-opt --pattern-encode %s 2>&1 | filecheck %s

// Encoded layers, dense pointwise and depthwise ones, and other ops stay as they are, without a remark.

// CHECK-NOT: remark
func.func @encoded(%x: tensor<1x1x4x4xf32>, %values: tensor<1x4xf32>) -> tensor<1x1x2x2xf32> {
  %index = arith.constant dense<0> : tensor<1xi16>
  %offset = arith.constant dense<[0, 1]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1]]> : tensor<1x2xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %index) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x1x4x4xf32>, tensor<1x4xf32>, tensor<1xi16>, tensor<2xi32>,
    tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x2x2xf32>
  return %y : tensor<1x1x2x2xf32>
}

func.func @dense_as_a_matter_of_course(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32> {
  %pointwise = arith.constant dense<1.> : tensor<2x2x1x1xf32>
  %y = "pattern.conv2d"(%x, %pointwise) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %depthwise = arith.constant dense<1.> : tensor<2x1x3x3xf32>
  %z = "pattern.conv2d"(%y, %depthwise) {activation = "none", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<2x1x3x3xf32>) -> tensor<1x2x2x2xf32>
  return %z : tensor<1x2x2x2xf32>
}
