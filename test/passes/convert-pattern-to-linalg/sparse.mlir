// RUN: patc-opt --convert-pattern-to-linalg %s | filecheck %s

// Stored filter 0 makes output channel 1: from input channel 1 with pattern 0, the left column. Stored filter 1
// makes output channel 0: from input channel 0 with pattern 0, from input channel 2 with pattern 1, the upper row.

// CHECK-LABEL: func.func @decodes_kernels
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<1x3x3x3xf32>, %[[BIAS:[a-z0-9]+]]: tensor<2xf32>
// CHECK-NEXT:    %[[WEIGHT:.*]] = arith.constant dense<
// CHECK-SAME:      {{\[\[\[\[}}3.000000e+00, 0.000000e+00], [4.000000e+00, 0.000000e+00]], {{\[\[}}0.000000e+00, 0.000000e+00], [0.000000e+00, 0.000000e+00]], {{\[\[}}5.000000e+00, 6.000000e+00], [0.000000e+00, 0.000000e+00]]],
// CHECK-SAME:      {{\[\[\[}}0.000000e+00, 0.000000e+00], [0.000000e+00, 0.000000e+00]], {{\[\[}}1.000000e+00, 0.000000e+00], [2.000000e+00, 0.000000e+00]], {{\[\[}}0.000000e+00, 0.000000e+00], [0.000000e+00, 0.000000e+00]]]]>
// CHECK:         %[[INIT:.*]] = linalg.broadcast ins(%[[BIAS]]
// CHECK:         linalg.conv_2d_nchw_fchw {{.*}} ins(%[[INPUT]], %[[WEIGHT]] : {{.*}}) outs(%[[INIT]]
// CHECK-NOT:     dense<[0, 1, 3]>
func.func @decodes_kernels(%input: tensor<1x3x3x3xf32>, %bias: tensor<2xf32>) -> tensor<1x2x2x2xf32> {
  %values = arith.constant dense<[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]> : tensor<3x2xf32>
  %index = arith.constant dense<[1, 0, 2]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1, 1], [0, 1, 2]]> : tensor<2x3xi16>
  %reorder = arith.constant dense<[1, 0]> : tensor<2xi16>
  %result = "pattern.sparse_conv2d"(%input, %values, %index, %offset, %pattern_offsets, %reorder, %bias)
    {activation = "none", dilations = array<i64: 1, 1>,
     format = #pattern.fkw<array<i64: 2, 2>, array<i64: 5, 3>>,
     operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1, 0>, pads = array<i64: 0, 0, 0, 0>,
     strides = array<i64: 1, 1>}
    : (tensor<1x3x3x3xf32>, tensor<3x2xf32>, tensor<3xi16>, tensor<3xi32>, tensor<2x3xi16>, tensor<2xi16>,
       tensor<2xf32>) -> tensor<1x2x2x2xf32>
  return %result : tensor<1x2x2x2xf32>
}
