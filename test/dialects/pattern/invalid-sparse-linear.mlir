// RUN: patc-opt --split-input-file --verify-diagnostics %s

func.func @format_type(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x2xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected 'format' to be a weight format, as #pattern.fkw, got 1 : i64}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    format = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>} : (tensor<2x20xf32>, tensor<9x4xf32>,
    tensor<9xi16>, tensor<5xi32>, tensor<4x2xi16>, tensor<4xi16>) -> tensor<2x4xf32>
  return
}

// -----

func.func @input_rank(%x: tensor<2x20x1x1xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x2xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected input of rank 2, got rank 4}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>} : (tensor<2x20x1x1xf32>, tensor<9x4xf32>,
    tensor<9xi16>, tensor<5xi32>, tensor<4x2xi16>, tensor<4xi16>) -> tensor<2x4xf32>
  return
}

// -----

func.func @result_rank(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x2xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected result of rank 2, got rank 1}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>} : (tensor<2x20xf32>, tensor<9x4xf32>,
    tensor<9xi16>, tensor<5xi32>, tensor<4x2xi16>, tensor<4xi16>) -> tensor<4xf32>
  return
}

// -----

func.func @kernel_size(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x2xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected a format of 1x1 kernels, got 3x3}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>} : (tensor<2x20xf32>, tensor<9x4xf32>,
    tensor<9xi16>, tensor<5xi32>, tensor<4x2xi16>, tensor<4xi16>) -> tensor<2x4xf32>
  return
}

// -----

func.func @result_rows(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x2xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected result of 2 rows, got 3}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>} : (tensor<2x20xf32>, tensor<9x4xf32>,
    tensor<9xi16>, tensor<5xi32>, tensor<4x2xi16>, tensor<4xi16>) -> tensor<3x4xf32>
  return
}

// -----

func.func @bias_shape(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x2xi16>, %reorder: tensor<4xi16>, %b: tensor<5xf32>) {
  // expected-error @below {{'pattern.sparse_linear' op expected bias of shape [4], got [5]}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %offset, %pattern_offsets, %reorder, %b) {activation = "relu",
    format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1, 0>} : (tensor<2x20xf32>, tensor<9x4xf32>,
    tensor<9xi16>, tensor<5xi32>, tensor<4x2xi16>, tensor<4xi16>, tensor<5xf32>) -> tensor<2x4xf32>
  return
}
