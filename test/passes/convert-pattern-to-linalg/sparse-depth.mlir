// RUN: patc-opt --convert-pattern-to-linalg --split-input-file --verify-diagnostics %s | filecheck %s

// Kernels of two channels. The first reads the channels 0 and 1, the second the channels 1 and 2; on channel 1 they
// add up.

// CHECK-LABEL: func.func @decodes_kernels_of_two_channels
// CHECK:         %[[WEIGHT:.*]] = arith.constant dense<
// CHECK-SAME:      {{\[\[\[\[}}1.000000e+00, 0.000000e+00]], {{\[\[}}3.000000e+00, 2.000000e+00]], {{\[\[}}0.000000e+00, 4.000000e+00]]]]>
// CHECK:         linalg.conv_2d_nchw_fchw {{.*}} ins(%{{.*}}, %[[WEIGHT]] :
func.func @decodes_kernels_of_two_channels(%input: tensor<1x3x3x3xf32>) -> tensor<1x1x3x2xf32> {
  %values = arith.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf32>
  %index = arith.constant dense<[0, 1]> : tensor<2xi16>
  %offset = arith.constant dense<[0, 2]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 2]]> : tensor<1x2xi16>
  %reorder = arith.constant dense<0> : tensor<1xi16>
  %result = "pattern.sparse_conv2d"(%input, %values, %index, %offset, %pattern_offsets, %reorder)
    {activation = "none", dilations = array<i64: 1, 1>,
     format = #pattern.fkw<array<i64: 1, 2, 2>, array<i64: 9>>,
     operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
     strides = array<i64: 1, 1>}
    : (tensor<1x3x3x3xf32>, tensor<2x2xf32>, tensor<2xi16>, tensor<2xi32>, tensor<1x2xi16>, tensor<1xi16>)
    -> tensor<1x1x3x2xf32>
  return %result : tensor<1x1x3x2xf32>
}

// -----

func.func @kernel_that_ends_behind_the_last_channel(%input: tensor<1x3x3x3xf32>) -> tensor<1x1x3x2xf32> {
  %values = arith.constant dense<1.0> : tensor<1x2xf32>
  %index = arith.constant dense<2> : tensor<1xi16>
  %offset = arith.constant dense<[0, 1]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1]]> : tensor<1x2xi16>
  %reorder = arith.constant dense<0> : tensor<1xi16>
  // expected-error @below {{'pattern.sparse_conv2d' op expected index below 2, as a kernel spans 2 of 3 input channels, got 2}}
  %result = "pattern.sparse_conv2d"(%input, %values, %index, %offset, %pattern_offsets, %reorder)
    {activation = "none", dilations = array<i64: 1, 1>,
     format = #pattern.fkw<array<i64: 1, 2, 2>, array<i64: 9>>,
     operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
     strides = array<i64: 1, 1>}
    : (tensor<1x3x3x3xf32>, tensor<1x2xf32>, tensor<1xi16>, tensor<2xi32>, tensor<1x2xi16>, tensor<1xi16>)
    -> tensor<1x1x3x2xf32>
  return %result : tensor<1x1x3x2xf32>
}
