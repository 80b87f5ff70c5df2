// RUN: patc-opt --pattern-layout=target=x86-64-v3 %s | filecheck %s --check-prefix=V3
// RUN: patc-opt --pattern-layout=target=x86-64-v4 %s | filecheck %s --check-prefix=V4
// RUN: patc-opt --pattern-demote=dtype=f16 --pattern-layout=target=aarch64-linux %s | filecheck %s --check-prefix=F16

// Rows are whole vectors of the target, and planes an odd number of cache lines.

// V3: "pattern.activate"
// V3-SAME: row = 24 : i64
// V4: "pattern.activate"
// V4-SAME: row = 32 : i64
// F16: "pattern.activate"
// F16-SAME: plane = 224 : i64, row = 24 : i64
func.func @rows_of_20_columns(%x: tensor<1x2x7x20xf32>, %w: tensor<2x2x3x3xf32>) -> tensor<1x2x7x20xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x7x20xf32>) -> tensor<1x2x7x20xf32>
  %z = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x7x20xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x7x20xf32>
  return %z : tensor<1x2x7x20xf32>
}
