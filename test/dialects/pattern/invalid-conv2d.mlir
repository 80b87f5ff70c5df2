// RUN: patc-opt --split-input-file --verify-diagnostics %s

func.func @weight_rank(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected weight of rank 4, got rank 3}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @input_rank(%x: tensor<8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected input of rank 4, got rank 3}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @result_rank(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected result of rank 4, got rank 3}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<4x6x6xf32>
  return
}

// -----

func.func @strides_count(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected 'strides' to be array<i64> of 2 values of 1 or more, got array<i64: 1>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1>}
    : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @strides_zero(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected 'strides' to be array<i64> of 2 values of 1 or more, got array<i64: 0, 1>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 0, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @strides_type(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected 'strides' to be array<i64> of 2 values of 1 or more, got array<i32: 1, 1>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i32: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @pads_negative(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected 'pads' to be array<i64> of 4 values of 0 or more, got array<i64: 1, 1, 1, -1>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, -1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @dilations_zero(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected 'dilations' to be array<i64> of 2 values of 1 or more, got array<i64: 0, 1>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 0, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @result_height(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected result batch, height and width [1, 6, 6], got [1, 4, 6]}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x4x6xf32>
  return
}

// -----

func.func @result_batch(%x: tensor<2x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected result batch, height and width [2, 6, 6], got [1, 6, 6]}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<2x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @result_channels(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected 4 result channels, got 5}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x5x6x6xf32>
  return
}

// -----

func.func @bias_shape(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>, %b: tensor<8xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected bias of shape [4], got [8]}}
  %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>, tensor<8xf32>) ->
    tensor<1x4x6x6xf32>
  return
}

// -----

func.func @residual_shape(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>, %r: tensor<1x4x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected residual of shape [1, 4, 6, 6], got [1, 4, 3, 3]}}
  %y = "pattern.conv2d"(%x, %w, %r) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>, tensor<1x4x3x3xf32>) ->
    tensor<1x4x6x6xf32>
  return
}

// -----

func.func @activation_unknown(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected activation "none", "relu", #pattern.clamp or #pattern.activation, got "gelu"}}
  %y = "pattern.conv2d"(%x, %w) {activation = "gelu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @input_channels(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected input channels to equal groups x weight channels, got 8 and 2 x 8}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @filters_and_groups(%x: tensor<1x8x6x6xf32>, %w: tensor<5x4x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected filters to be a multiple of groups, got 5 and 2}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>, tensor<5x4x3x3xf32>) -> tensor<1x5x6x6xf32>
  return
}

// -----

func.func @attribute_missing(%x: tensor<1x8x6x6xf32>, %w: tensor<4x8x3x3xf32>) {
  // expected-error @below {{'pattern.conv2d' op attribute "pads" is expected but not provided}}
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>,
    tensor<4x8x3x3xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @operand_segments_missing(%x: tensor<1x2x4x4xf32>, %w: tensor<3x2x3x3xf32>) -> tensor<1x3x4x4xf32> {
  // expected-error @below {{'pattern.conv2d' op expected operandSegmentSizes of 4 values that count the operands, got none}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<3x2x3x3xf32>) -> tensor<1x3x4x4xf32>
  return %y : tensor<1x3x4x4xf32>
}

// -----

func.func @operand_segments_count_other_operands(%x: tensor<1x2x4x4xf32>, %w: tensor<3x2x3x3xf32>) -> tensor<1x3x4x4xf32> {
  // expected-error @below {{'pattern.conv2d' op expected operandSegmentSizes of 4 values that count the operands, got array<i32: 1, 1, 1, 0>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<3x2x3x3xf32>) -> tensor<1x3x4x4xf32>
  return %y : tensor<1x3x4x4xf32>
}

// -----

func.func @no_groups(%x: tensor<1x2x4x4xf32>, %w: tensor<3x2x3x3xf32>) -> tensor<1x3x4x4xf32> {
  // expected-error @below {{'pattern.conv2d' op expected 'groups' of 1 or more, got 0 : i64}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 0 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<3x2x3x3xf32>) -> tensor<1x3x4x4xf32>
  return %y : tensor<1x3x4x4xf32>
}

// -----

func.func @clamp_bounds_are_no_floats(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  // expected-error @below {{'pattern.activate' op expected bounds of #pattern.clamp to be floats, got #pattern.clamp<0 : i64, 6 : i64>}}
  %y = "pattern.activate"(%x) {activation = #pattern.clamp<0 : i64, 6 : i64>} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}
