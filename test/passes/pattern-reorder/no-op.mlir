// RUN: patc-opt --pattern-reorder --split-input-file %s > %t && patc-opt --split-input-file %s | diff - %t
// RUN: patc-opt --pattern-reorder --split-input-file --verify-diagnostics %s

// Filters that are sorted already, although 2, 1, 0 is how they go out.

func.func @sorted(%x: tensor<1x2x4x4xf32>) -> tensor<1x3x4x4xf32> {
  %values = arith.constant dense<[[1., 2.], [3., 4.], [5., 6.], [7., 8.]]> : tensor<4x2xf32>
  %index = arith.constant dense<[0, 1, 1, 0]> : tensor<4xi16>
  %offset = arith.constant dense<[0, 2, 3, 4]> : tensor<4xi32>
  %pattern_offsets = arith.constant dense<[[0, 2], [0, 1], [0, 1]]> : tensor<3x2xi16>
  %reorder = arith.constant dense<[2, 1, 0]> : tensor<3xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<4x2xf32>, tensor<4xi16>, tensor<4xi32>,
    tensor<3x2xi16>, tensor<3xi16>) -> tensor<1x3x4x4xf32>
  return %y : tensor<1x3x4x4xf32>
}

// -----

func.func @dense_layers_only(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %w = arith.constant dense<[[[[1.]], [[2.]]], [[[3.]], [[4.]]]]> : tensor<2x2x1x1xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32>
  %v = arith.constant dense<[[[[5.]], [[6.]]]]> : tensor<1x2x1x1xf32>
  %z = "pattern.conv2d"(%y, %v) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x4x4xf32>
  return %z : tensor<1x1x4x4xf32>
}

// -----

func.func @computed_arrays(%x: tensor<1x2x4x4xf32>, %values: tensor<3x2xf32>) -> tensor<1x2x4x4xf32> {
  %index = arith.constant dense<[0, 0, 1]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 2]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  // expected-remark @+1 {{keeps the order of its filters: its arrays are not constant}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<3x2xf32>, tensor<3xi16>, tensor<3xi32>,
    tensor<2x2xi16>, tensor<2xi16>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}
