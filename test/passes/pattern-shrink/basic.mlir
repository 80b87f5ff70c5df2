// RUN: patc-opt --pattern-shrink --split-input-file --verify-diagnostics %s | filecheck %s
// RUN: patc-opt --pattern-shrink --split-input-file %s > %t && patc-opt --pattern-shrink --split-input-file %t | diff %t -

// Filters 1 and 3 hold relu(2) and relu(-1): the first goes into the bias, the other nowhere.
// CHECK-LABEL: @into_the_bias
// CHECK: "pattern.conv2d"(%arg0, {{.*}}) {{.*}} -> tensor<1x2x2x2xf32>
// CHECK: dense<1.600000e+01> : tensor<1xf32>
// CHECK: "pattern.conv2d"({{.*}}) {{.*}} : (tensor<1x2x2x2xf32>, tensor<1x2x1x1xf32>, tensor<1xf32>) -> tensor<1x1x2x2xf32>
func.func @into_the_bias(%x: tensor<1x1x2x2xf32>) -> tensor<1x1x2x2xf32> {
  %w = arith.constant dense<[[[[1.]]], [[[0.]]], [[[2.]]], [[[0.]]]]> : tensor<4x1x1x1xf32>
  %b = arith.constant dense<[0., 2., 0., -1.]> : tensor<4xf32>
  // expected-remark @+1 {{shrinks to 2 of 4 filters: the others are constant or not read}}
  %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x1x2x2xf32>, tensor<4x1x1x1xf32>, tensor<4xf32>) -> tensor<1x4x2x2xf32>
  %v = arith.constant dense<[[[[1.]], [[3.]], [[4.]], [[5.]]]]> : tensor<1x4x1x1xf32>
  %c = arith.constant dense<[10.]> : tensor<1xf32>
  // expected-remark @+1 {{shrinks to 2 of 4 inputs: the others are constant or not read}}
  %z = "pattern.conv2d"(%y, %v, %c) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x4x2x2xf32>, tensor<1x4x1x1xf32>, tensor<1xf32>) -> tensor<1x1x2x2xf32>
  return %z : tensor<1x1x2x2xf32>
}

// -----

// Around the planes the number is not there: channel 1 stays, for channel 2 as well.
// CHECK-LABEL: @into_a_channel
// CHECK: -> tensor<1x2x2x2xf32>
// CHECK: dense<{{.*}}1.000000e+00, 2.000000e+00, 3.000000e+00{{.*}}1.000000e+01, 1.050000e+01, 1.100000e+01
// CHECK: "pattern.conv2d"({{.*}}) {{.*}} : (tensor<1x2x2x2xf32>, tensor<1x2x1x3xf32>) -> tensor<1x1x2x2xf32>
func.func @into_a_channel(%x: tensor<1x1x2x2xf32>) -> tensor<1x1x2x2xf32> {
  %w = arith.constant dense<[[[[1.]]], [[[0.]]], [[[0.]]]]> : tensor<3x1x1x1xf32>
  %b = arith.constant dense<[0., 2., 1.]> : tensor<3xf32>
  // expected-remark @+1 {{shrinks to 2 of 3 filters: the others are constant or not read}}
  %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x1x2x2xf32>, tensor<3x1x1x1xf32>, tensor<3xf32>) -> tensor<1x3x2x2xf32>
  %v = arith.constant dense<[[[[1., 2., 3.]], [[9., 9., 9.]], [[2., 3., 4.]]]]> : tensor<1x3x1x3xf32>
  // expected-remark @+1 {{shrinks to 2 of 3 inputs: the others are constant or not read}}
  %z = "pattern.conv2d"(%y, %v) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 1, 0, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x3x2x2xf32>, tensor<1x3x1x3xf32>) -> tensor<1x1x2x2xf32>
  return %z : tensor<1x1x2x2xf32>
}

// -----

// Nothing reads the second feature: what computes it goes. The result keeps its constant.
// CHECK-LABEL: @not_read
// CHECK: "pattern.linear"(%arg0, {{.*}}) {{.*}} -> tensor<1x1xf32>
// CHECK: "pattern.linear"({{.*}}) {{.*}} : (tensor<1x1xf32>, tensor<2x1xf32>) -> tensor<1x2xf32>
func.func @not_read(%x: tensor<1x3xf32>) -> tensor<1x2xf32> {
  %w = arith.constant dense<[[1., 2., 3.], [4., 5., 6.]]> : tensor<2x3xf32>
  // expected-remark @+1 {{shrinks to 1 of 2 filters: the others are constant or not read}}
  %y = "pattern.linear"(%x, %w) {activation = "relu", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x3xf32>, tensor<2x3xf32>) -> tensor<1x2xf32>
  %v = arith.constant dense<[[7., 0.], [0., 0.]]> : tensor<2x2xf32>
  // expected-remark @+1 {{shrinks to 1 of 2 inputs: the others are constant or not read}}
  %z = "pattern.linear"(%y, %v) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %z : tensor<1x2xf32>
}
