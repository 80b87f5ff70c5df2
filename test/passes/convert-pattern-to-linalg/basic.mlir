// RUN: patc-opt --convert-pattern-to-linalg %s | filecheck %s

// CHECK-LABEL: func.func @convolution
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<1x4x6x6xf32>, %[[WEIGHT:[a-z0-9]+]]: tensor<8x4x3x3xf32>, %[[BIAS:[a-z0-9]+]]: tensor<8xf32>, %[[SKIP:[a-z0-9]+]]: tensor<1x8x3x4xf32>
// CHECK:         %[[PADDED:.*]] = tensor.pad %[[INPUT]] low[0, 0, 1, 0] high[0, 0, 0, 2]
// CHECK:         %[[INIT:.*]] = linalg.broadcast ins(%[[BIAS]] : tensor<8xf32>) {{.*}} dimensions = [0, 2, 3]
// CHECK:         %[[CONV:.*]] = linalg.conv_2d_nchw_fchw {dilations = dense<[1, 2]> : {{.*}}, strides = dense<[2, 1]> : {{.*}}}
// CHECK-SAME:      ins(%[[PADDED]], %[[WEIGHT]] : {{.*}}) outs(%[[INIT]]
// CHECK:         %[[SUM:.*]] = linalg.generic {{.*}} ins(%[[CONV]], %[[SKIP]]
// CHECK:           arith.addf
// CHECK:         linalg.generic {{.*}} ins(%[[SUM]]
// CHECK:           arith.maximumf
// CHECK-NOT:     pattern.
func.func @convolution(%input: tensor<1x4x6x6xf32>, %weight: tensor<8x4x3x3xf32>, %bias: tensor<8xf32>,
                       %skip: tensor<1x8x3x4xf32>) -> tensor<1x8x3x4xf32> {
  %result = "pattern.conv2d"(%input, %weight, %bias, %skip) {activation = "relu", dilations = array<i64: 1, 2>,
      groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 1, 1>, pads = array<i64: 1, 0, 0, 2>,
      strides = array<i64: 2, 1>}
    : (tensor<1x4x6x6xf32>, tensor<8x4x3x3xf32>, tensor<8xf32>, tensor<1x8x3x4xf32>) -> tensor<1x8x3x4xf32>
  return %result : tensor<1x8x3x4xf32>
}

// CHECK-LABEL: func.func @grouped_convolution
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<1x4x6x6xf32>, %[[WEIGHT:[a-z0-9]+]]: tensor<6x2x3x3xf32>
// CHECK-DAG:     %[[GROUPED_INPUT:.*]] = tensor.expand_shape %[[INPUT]] {{.*}} into tensor<1x2x2x6x6xf32>
// CHECK-DAG:     %[[GROUPED_WEIGHT:.*]] = tensor.expand_shape %[[WEIGHT]] {{.*}} into tensor<2x3x2x3x3xf32>
// CHECK:         linalg.conv_2d_ngchw_gfchw {{.*}} ins(%[[GROUPED_INPUT]], %[[GROUPED_WEIGHT]]
func.func @grouped_convolution(%input: tensor<1x4x6x6xf32>, %weight: tensor<6x2x3x3xf32>) -> tensor<1x6x4x4xf32> {
  %result = "pattern.conv2d"(%input, %weight) {activation = "none", dilations = array<i64: 1, 1>,
      groups = 2 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
      strides = array<i64: 1, 1>}
    : (tensor<1x4x6x6xf32>, tensor<6x2x3x3xf32>) -> tensor<1x6x4x4xf32>
  return %result : tensor<1x6x4x4xf32>
}

// CHECK-LABEL: func.func @linear
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<2x3xf32>, %[[WEIGHT:[a-z0-9]+]]: tensor<5x3xf32>
// CHECK:         %[[TRANSPOSED:.*]] = linalg.transpose ins(%[[WEIGHT]]
// CHECK:         %[[PRODUCT:.*]] = linalg.matmul ins(%[[INPUT]], %[[TRANSPOSED]]
// CHECK:         linalg.generic {{.*}} ins(%[[PRODUCT]]
// CHECK:           %[[LOWER:.*]] = arith.maximumf
// CHECK:           arith.minimumf %[[LOWER]]
func.func @linear(%input: tensor<2x3xf32>, %weight: tensor<5x3xf32>) -> tensor<2x5xf32> {
  %result = "pattern.linear"(%input, %weight) {activation = #pattern.clamp<0.0 : f32, 6.0 : f32>,
      operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<2x3xf32>, tensor<5x3xf32>) -> tensor<2x5xf32>
  return %result : tensor<2x5xf32>
}

// CHECK-LABEL: func.func @max_pool
// CHECK:         %[[LOWEST:.*]] = arith.constant 0xFF800000 : f32
// CHECK:         %[[PADDED:.*]] = tensor.pad
// CHECK:           tensor.yield %[[LOWEST]]
// CHECK:         linalg.pooling_nchw_max {{.*}} strides = dense<2>
// CHECK-SAME:      ins(%[[PADDED]], %{{.*}} : {{.*}}, tensor<3x3xf32>)
func.func @max_pool(%input: tensor<1x4x6x6xf32>) -> tensor<1x4x3x3xf32> {
  %result = "pattern.max_pool2d"(%input) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
      pads = array<i64: 1, 1, 0, 0>, strides = array<i64: 2, 2>} : (tensor<1x4x6x6xf32>) -> tensor<1x4x3x3xf32>
  return %result : tensor<1x4x3x3xf32>
}

// CHECK-LABEL: func.func @average_with_padding
// CHECK:         %[[COUNT:.*]] = arith.constant 4.000000e+00 : f32
// CHECK:           arith.divf %{{.*}}, %[[COUNT]]
func.func @average_with_padding(%input: tensor<1x1x2x2xf32>) -> tensor<1x1x3x3xf32> {
  %result = "pattern.avg_pool2d"(%input) {count_include_pad = true, dilations = array<i64: 1, 1>,
      kernel = array<i64: 2, 2>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x1x2x2xf32>) -> tensor<1x1x3x3xf32>
  return %result : tensor<1x1x3x3xf32>
}

// CHECK-LABEL: func.func @average_without_padding
// CHECK:         arith.constant dense<{{\[\[}}1.000000e+00, 2.000000e+00, 1.000000e+00], [2.000000e+00, 4.000000e+00, 2.000000e+00], [1.000000e+00, 2.000000e+00, 1.000000e+00]]>
// CHECK:           arith.divf
func.func @average_without_padding(%input: tensor<1x1x2x2xf32>) -> tensor<1x1x3x3xf32> {
  %result = "pattern.avg_pool2d"(%input) {count_include_pad = false, dilations = array<i64: 1, 1>,
      kernel = array<i64: 2, 2>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x1x2x2xf32>) -> tensor<1x1x3x3xf32>
  return %result : tensor<1x1x3x3xf32>
}

// CHECK-LABEL: func.func @sum_and_activation
// CHECK-SAME:    %[[LHS:[a-z0-9]+]]: tensor<2x3xf32>, %[[RHS:[a-z0-9]+]]: tensor<2x3xf32>
// CHECK:         %[[SUM:.*]] = linalg.generic {{.*}} ins(%[[LHS]], %[[RHS]]
// CHECK:         linalg.generic {{.*}} ins(%[[SUM]]
// CHECK:           arith.maximumf
func.func @sum_and_activation(%lhs: tensor<2x3xf32>, %rhs: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %sum = "pattern.add"(%lhs, %rhs) {activation = "none"} : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  %result = "pattern.activate"(%sum) {activation = "relu"} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  return %result : tensor<2x3xf32>
}
