// RUN: patc-opt --split-input-file --verify-diagnostics %s

func.func @rows(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<3xi32>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected #pattern.bands of rows that divide 8 filters, got #pattern.bands<3 : i64, array<i64: 1, 1>>}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %reorder) {activation = "relu",
    format = #pattern.bands<3 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<3xi32>, tensor<8xi16>) -> tensor<2x8xf32>
  return
}

// -----

func.func @values(%x: tensor<2x20xf32>, %values: tensor<9x8xf32>, %index: tensor<9xi16>,
    %offset: tensor<3xi32>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected values of shape [9, 4], got [9, 8]}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %reorder) {activation = "relu",
    format = #pattern.bands<4 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9x8xf32>, tensor<9xi16>, tensor<3xi32>, tensor<8xi16>) -> tensor<2x8xf32>
  return
}

// -----

func.func @offset(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<9xi32>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected offset of shape [3], got [9]}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %reorder) {activation = "relu",
    format = #pattern.bands<4 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<9xi32>, tensor<8xi16>) -> tensor<2x8xf32>
  return
}

// -----

func.func @kernel(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<3xi32>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected a format of 1x1 kernels, got 3x3}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %reorder) {activation = "relu",
    format = #pattern.bands<4 : i64, array<i64: 3, 3>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<3xi32>, tensor<8xi16>) -> tensor<2x8xf32>
  return
}
