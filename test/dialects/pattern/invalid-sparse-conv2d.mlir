// RUN: patc-opt --split-input-file --verify-diagnostics %s

func.func @format_type(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected 'format' to be a weight format, as #pattern.fkw, got "phase2"}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = "phase2",
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @mask_too_large(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected patterns within the 3x3 kernel, got mask 512}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 512>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @mask_empty(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected patterns within the 3x3 kernel, got mask 0}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 0, 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @masks_of_different_size(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected patterns with equally many entries, got masks [27, 7]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 7>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @result_rank(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected result of rank 4, got rank 3}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<4x6x6xf32>
  return
}

// -----

func.func @values_shape(%x: tensor<1x8x6x6xf32>, %values: tensor<9x3xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected values of shape [9, 4], got [9, 3]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x3xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @index_shape(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<8xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected index of shape [9], got [8]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<8xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @offset_shape(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<4xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected offset of shape [5], got [4]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<4xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @pattern_offsets_shape(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x2xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected pattern_offsets of shape [4, 3], got [4, 2]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x2xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @reorder_shape(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<5xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected reorder of shape [4], got [5]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<5xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @input_rank(%x: tensor<8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected input of rank 4, got rank 3}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @result_width(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected result batch, height and width [1, 6, 6], got [1, 6, 5]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x5xf32>
  return
}

// -----

func.func @bias_shape(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>, %b: tensor<8xf32>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected bias of shape [4], got [8]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder, %b) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>, tensor<8xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @residual_shape(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>, %r: tensor<1x4x6xf32>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected residual of shape [1, 4, 6, 6], got [1, 4, 6]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder, %r) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 1>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>, tensor<1x4x6xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @activation_type(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected activation "none", "relu", #pattern.clamp or #pattern.activation, got 1 : i64}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = 1 : i64,
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @attribute_missing(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op attribute "format" is expected but not provided}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>,
    tensor<9xi16>, tensor<5xi32>, tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @one_kernel_size(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected 2 or 3 kernel sizes of 1 or more, at most 63 taps in all, got [9]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 9>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @four_kernel_sizes(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected 2 or 3 kernel sizes of 1 or more, at most 63 taps in all, got [1, 1, 9, 1]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 1, 9, 1>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @kernel_size_zero(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected 2 or 3 kernel sizes of 1 or more, at most 63 taps in all, got [3, 0]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 0>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @too_many_taps(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected 2 or 3 kernel sizes of 1 or more, at most 63 taps in all, got [3, 3, 9]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3, 9>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @mask_too_large_for_nine_channels(%x: tensor<1x20x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected patterns within the 1x1x9 kernel, got mask 512}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 512>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x20x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @more_channels_than_the_input(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected a library of depth 8 or less, the input channels, got 9}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @array_missing(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected arrays values, index, offset, pattern_offsets, reorder, got 4 operands}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @format_of_numbers(%x: tensor<1x8x6x6xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi16>,
    %offset: tensor<5xi32>, %pattern_offsets: tensor<4x3xi16>, %reorder: tensor<4xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected #pattern.fkw of two i64 arrays, got #pattern.fkw<3 : i64, 27 : i64>}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<3 : i64, 27 : i64>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<9x4xf32>, tensor<9xi16>, tensor<5xi32>,
    tensor<4x3xi16>, tensor<4xi16>) -> tensor<1x4x6x6xf32>
  return
}
