// RUN: patc-opt --split-input-file --verify-diagnostics %s

func.func @storage(%x: tensor<1x4x!pattern.quantised<i8, 0.5 : f32, 3 : i64>>) {
  // expected-error @+1 {{'pattern.relayout' op expected !pattern.quantised of si8 or ui8, got !pattern.quantised<i8, 5.000000e-01 : f32, 3 : i64>}}
  %y = "pattern.relayout"(%x) : (tensor<1x4x!pattern.quantised<i8, 0.5 : f32, 3 : i64>>) -> tensor<1x4xf32>
  return
}

// -----

func.func @scale(%x: tensor<1x4x!pattern.quantised<si8, 0.0 : f32, 3 : i64>>) {
  // expected-error @+1 {{'pattern.relayout' op expected !pattern.quantised with a scale of f32 above 0, got}}
  %y = "pattern.relayout"(%x) : (tensor<1x4x!pattern.quantised<si8, 0.0 : f32, 3 : i64>>) -> tensor<1x4xf32>
  return
}

// -----

func.func @zero_point(%x: tensor<1x4x!pattern.quantised<si8, 0.5 : f32, 128 : i64>>) {
  // expected-error @+1 {{'pattern.relayout' op expected !pattern.quantised with a zero point of -128 to 127, got}}
  %y = "pattern.relayout"(%x) : (tensor<1x4x!pattern.quantised<si8, 0.5 : f32, 128 : i64>>) -> tensor<1x4xf32>
  return
}

// -----

func.func @no_scales(%x: tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, %w: tensor<2x4xi8>) {
  // expected-error @+1 {{'pattern.linear' op expected 'scales', one a filter, together with a quantised input, got None}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, tensor<2x4xi8>) -> tensor<1x2xf32>
  return
}

// -----

func.func @too_few_scales(%x: tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, %w: tensor<2x4xi8>) {
  // expected-error @+1 {{'pattern.linear' op expected 'scales' to be array<f32> of 2 values above 0, got array<f32: 1.000000e+00>}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>, scales = array<f32: 1.0>}
    : (tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, tensor<2x4xi8>) -> tensor<1x2xf32>
  return
}

// -----

func.func @weights(%x: tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, %w: tensor<2x4xf32>) {
  // expected-error @+1 {{'pattern.linear' op expected weights of i8, got tensor<2x4xf32>}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>, scales = array<f32: 1.0, 1.0>}
    : (tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, tensor<2x4xf32>) -> tensor<1x2xf32>
  return
}

// -----

func.func @bias(%x: tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, %w: tensor<2x4xi8>, %b: tensor<2xf32>) {
  // expected-error @+1 {{'pattern.linear' op expected a bias of i32, got tensor<2xf32>}}
  %y = "pattern.linear"(%x, %w, %b) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0>, scales = array<f32: 1.0, 1.0>}
    : (tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, tensor<2x4xi8>, tensor<2xf32>) -> tensor<1x2xf32>
  return
}

// -----

func.func @residual(%x: tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, %w: tensor<2x4xi8>,
    %r: tensor<1x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) {
  // expected-error @+1 {{'pattern.linear' op expected a residual that is quantised as the result is, got tensor<1x2x!pattern.quantised}}
  %y = "pattern.linear"(%x, %w, %r) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 1>, scales = array<f32: 1.0, 1.0>}
    : (tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, tensor<2x4xi8>, tensor<1x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) -> tensor<1x2xf32>
  return
}

// -----

func.func @maximum_of_another_scale(%x: tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) {
  // expected-error @+1 {{'pattern.max_pool2d' op expected a result of the input's elements, got}}
  %y = "pattern.max_pool2d"(%x) {kernel = array<i64: 1, 1>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>} : (tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) -> tensor<1x4x2x2x!pattern.quantised<ui8, 0.25 : f32, 3 : i64>>
  return
}

// -----

func.func @mean_in_floats(%x: tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) {
  // expected-error @+1 {{'pattern.avg_pool2d' op expected a quantised input and result, got}}
  %y = "pattern.avg_pool2d"(%x) {kernel = array<i64: 1, 1>, strides = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, dilations = array<i64: 1, 1>, count_include_pad = true} : (tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) -> tensor<1x4x2x2xf32>
  return
}

// -----

func.func @sum_in_floats(%x: tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, %z: tensor<1x4x2x2xf32>) {
  // expected-error @+1 {{'pattern.add' op expected a quantised result, got}}
  %y = "pattern.add"(%x, %z) {activation = "none"} : (tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, tensor<1x4x2x2xf32>) -> tensor<1x4x2x2xf32>
  return
}

// -----

func.func @product(%x: tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) {
  // expected-error @+1 {{'pattern.multiply' op expected tensors that are not quantised, got}}
  %y = "pattern.multiply"(%x, %x) {activation = "none"} : (tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) -> tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>
  return
}

// -----

func.func @activation(%x: tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) {
  // expected-error @+1 {{'pattern.activate' op expected tensors that are not quantised, got}}
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) -> tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>
  return
}
