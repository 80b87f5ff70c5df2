// RUN: patc-opt --pattern-demote=dtype=f16 %s > %t
// RUN: patc-opt --pattern-demote=dtype=f16 %t | diff %t -

func.func @net(%x: tensor<1x1x4x4xf32>) -> (tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>) {
  %w = arith.constant dense<1.1> : tensor<1x1x1x1xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x1x4x4xf32>, tensor<1x1x1x1xf32>) -> tensor<1x1x4x4xf32>
  return %y, %x : tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>
}
