// RUN: patc-opt --convert-pattern-to-linalg --verify-diagnostics --split-input-file %s

func.func @values_computed_at_run_time(%input: tensor<1x3x3x3xf32>, %values: tensor<2x2xf32>) -> tensor<1x2x2x2xf32> {
  %index = arith.constant dense<[1, 0]> : tensor<2xi16>
  %offset = arith.constant dense<[0, 1, 2]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 1]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  // expected-error @below {{'pattern.sparse_conv2d' op expected constant values, got tensor<2x2xf32>}}
  %result = "pattern.sparse_conv2d"(%input, %values, %index, %offset, %pattern_offsets, %reorder)
    {activation = "none", dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 2, 2>, array<i64: 5>>,
     operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
     strides = array<i64: 1, 1>}
    : (tensor<1x3x3x3xf32>, tensor<2x2xf32>, tensor<2xi16>, tensor<3xi32>, tensor<2x2xi16>, tensor<2xi16>)
    -> tensor<1x2x2x2xf32>
  return %result : tensor<1x2x2x2xf32>
}

// -----

func.func @channel_out_of_range(%input: tensor<1x3x3x3xf32>) -> tensor<1x2x2x2xf32> {
  %values = arith.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>
  %index = arith.constant dense<[1, 3]> : tensor<2xi16>
  %offset = arith.constant dense<[0, 1, 2]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 1]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  // expected-error @below {{'pattern.sparse_conv2d' op expected index below 3, the input channels, got 3}}
  %result = "pattern.sparse_conv2d"(%input, %values, %index, %offset, %pattern_offsets, %reorder)
    {activation = "none", dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 2, 2>, array<i64: 5>>,
     operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
     strides = array<i64: 1, 1>}
    : (tensor<1x3x3x3xf32>, tensor<2x2xf32>, tensor<2xi16>, tensor<3xi32>, tensor<2x2xi16>, tensor<2xi16>)
    -> tensor<1x2x2x2xf32>
  return %result : tensor<1x2x2x2xf32>
}

// -----

func.func @parameter_without_data(%input: tensor<1x3x3x3xf32>) -> tensor<1x2x2x2xf32> {
  // expected-error @below {{parameter 'conv.values' is not in the store}}
  %values = "pattern.parameter"() {name = "conv.values"} : () -> tensor<2x2xf32>
  %index = arith.constant dense<[1, 0]> : tensor<2xi16>
  %offset = arith.constant dense<[0, 1, 2]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 1]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  %result = "pattern.sparse_conv2d"(%input, %values, %index, %offset, %pattern_offsets, %reorder)
    {activation = "none", dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 2, 2>, array<i64: 5>>,
     operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
     strides = array<i64: 1, 1>}
    : (tensor<1x3x3x3xf32>, tensor<2x2xf32>, tensor<2xi16>, tensor<3xi32>, tensor<2x2xi16>, tensor<2xi16>)
    -> tensor<1x2x2x2xf32>
  return %result : tensor<1x2x2x2xf32>
}
