// RUN: patc-opt --pattern-reorder --split-input-file --verify-diagnostics %s
// RUN: not patc-opt --pattern-reorder="order=length" %s 2>&1 | filecheck %s

// CHECK: pass 'pattern-reorder' has no option 'order'

func.func @index_outside_the_input(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %values = arith.constant dense<1.> : tensor<1x2xf32>
  %index = arith.constant dense<1> : tensor<1xi16>
  %offset = arith.constant dense<[0, 1]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1]]> : tensor<1x2xi16>
  %reorder = arith.constant dense<0> : tensor<1xi16>
  // expected-error @+1 {{'pattern.sparse_conv2d' op expected index below 1, the input channels, got 1}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x1x4x4xf32>, tensor<1x2xf32>, tensor<1xi16>, tensor<2xi32>,
    tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}

// -----

func.func @reorder_that_is_no_permutation(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %values = arith.constant dense<1.> : tensor<1x2xf32>
  %index = arith.constant dense<0> : tensor<1xi16>
  %offset = arith.constant dense<[0, 1]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1]]> : tensor<1x2xi16>
  %reorder = arith.constant dense<1> : tensor<1xi16>
  // expected-error @+1 {{'pattern.sparse_conv2d' op expected reorder to name every output channel, got none that names 0}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x1x4x4xf32>, tensor<1x2xf32>, tensor<1xi16>, tensor<2xi32>,
    tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}

// -----

func.func @kernel_that_ends_behind_the_last_channel(%x: tensor<1x10x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %values = arith.constant dense<1.> : tensor<1x2xf32>
  %index = arith.constant dense<2> : tensor<1xi16>
  %offset = arith.constant dense<[0, 1]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1]]> : tensor<1x2xi16>
  %reorder = arith.constant dense<0> : tensor<1xi16>
  // expected-error @+1 {{'pattern.sparse_conv2d' op expected index below 2, as a kernel spans 9 of 10 input channels, got 2}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x10x4x4xf32>, tensor<1x2xf32>, tensor<1xi16>, tensor<2xi32>,
    tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}
