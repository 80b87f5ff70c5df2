// RUN: patc-opt --split-input-file --verify-diagnostics %s

func.func @tile(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9x4xi8>,
    %counts: tensor<2x1xi8>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected #pattern.packs of 1 to 20 inputs a tile, got #pattern.packs<21 : i64, array<i64: 1, 1>>}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %counts, %reorder) {activation = "relu",
    format = #pattern.packs<21 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9x4xf32>, tensor<9x4xi8>, tensor<2x1xi8>, tensor<8xi16>) -> tensor<2x8xf32>
  return
}

// -----

func.func @index(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9xi8>,
    %counts: tensor<2x3xi8>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected index of shape [9, 4], got [9]}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %counts, %reorder) {activation = "relu",
    format = #pattern.packs<8 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9x4xf32>, tensor<9xi8>, tensor<2x3xi8>, tensor<8xi16>) -> tensor<2x8xf32>
  return
}

// -----

// Bundles and tiles at the end may be partly empty: 7 filters are two bundles of four, 20 inputs three tiles of eight.

func.func @counts(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9x4xi8>,
    %counts: tensor<2x2xi8>, %reorder: tensor<7xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected counts of shape [2, 3], got [2, 2]}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %counts, %reorder) {activation = "relu",
    format = #pattern.packs<8 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9x4xf32>, tensor<9x4xi8>, tensor<2x2xi8>, tensor<7xi16>) -> tensor<2x7xf32>
  return
}

// -----

func.func @values(%x: tensor<2x20xf32>, %values: tensor<9xf32>, %index: tensor<9x4xi8>,
    %counts: tensor<2x3xi8>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected values of packs and slots, got [9]}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %counts, %reorder) {activation = "relu",
    format = #pattern.packs<8 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9xf32>, tensor<9x4xi8>, tensor<2x3xi8>, tensor<8xi16>) -> tensor<2x8xf32>
  return
}

// -----

// Each of nine taps has its own three tiles.

func.func @convolution(%x: tensor<1x20x4x4xf32>, %values: tensor<9x4xf32>, %index: tensor<9x4xi8>,
    %counts: tensor<2x3xi8>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected counts of shape [2, 27], got [2, 3]}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %counts, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>,
    format = #pattern.packs<8 : i64, array<i64: 3, 3>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<1x20x4x4xf32>, tensor<9x4xf32>, tensor<9x4xi8>, tensor<2x3xi8>, tensor<8xi16>) -> tensor<1x8x4x4xf32>
  return
}

// -----

func.func @kernel(%x: tensor<2x20xf32>, %values: tensor<9x4xf32>, %index: tensor<9x4xi8>,
    %counts: tensor<2x3xi8>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_linear' op expected #pattern.packs of a kernel's height and width, got #pattern.packs<8 : i64, array<i64: 1>>}}
  %y = "pattern.sparse_linear"(%x, %values, %index, %counts, %reorder) {activation = "none",
    format = #pattern.packs<8 : i64, array<i64: 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<2x20xf32>, tensor<9x4xf32>, tensor<9x4xi8>, tensor<2x3xi8>, tensor<8xi16>) -> tensor<2x8xf32>
  return
}

// -----

func.func @groups(%x: tensor<1x32x4x4xf32>, %values: tensor<9x4xf32>, %index: tensor<9x4xi8>,
    %counts: tensor<2x4xi8>, %reorder: tensor<8xi16>) {
  // expected-error @below {{'pattern.sparse_conv2d' op expected another format for 2 groups, got #pattern.packs<8 : i64, array<i64: 1, 1>>}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %counts, %reorder) {activation = "none", groups = 2 : i64,
    dilations = array<i64: 1, 1>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>,
    format = #pattern.packs<8 : i64, array<i64: 1, 1>>, operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>}
    : (tensor<1x32x4x4xf32>, tensor<9x4xf32>, tensor<9x4xi8>, tensor<2x4xi8>, tensor<8xi16>) -> tensor<1x8x4x4xf32>
  return
}
