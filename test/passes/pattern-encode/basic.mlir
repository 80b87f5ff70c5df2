// RUN: patc-opt --pattern-encode --split-input-file %s | filecheck %s

// The library is read from the zeros: pattern 27 is used twice, 54 once.

// CHECK-LABEL: func.func @finds_patterns_and_drops_empty_kernels
// CHECK-SAME:    %[[X:.*]]: tensor<1x3x4x4xf32>, %[[BIAS:.*]]: tensor<2xf32>, %[[SKIP:.*]]: tensor<1x2x4x4xf32>
// CHECK-DAG:     %[[VALUES:.*]] = arith.constant dense<{{\[\[}}9.{{.*}}, 1.{{.*}}, 2.{{.*}}, 3.{{.*}}], [1.{{.*}}, 2.{{.*}}, 3.{{.*}}, 4.{{.*}}], [5.{{.*}}, 6.{{.*}}, 7.{{.*}}, 8.{{.*}}]]>
// CHECK-DAG:     %[[INDEX:.*]] = arith.constant dense<[1, 0, 2]> : tensor<3xi16>
// CHECK-DAG:     %[[OFFSET:.*]] = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
// CHECK-DAG:     %[[STRIDE:.*]] = arith.constant dense<{{\[\[}}0, 1, 1], [0, 1, 2]]> : tensor<2x3xi16>
// CHECK-DAG:     %[[REORDER:.*]] = arith.constant dense<[0, 1]> : tensor<2xi16>
// CHECK:         %[[Y:.*]] = "pattern.sparse_conv2d"(%[[X]], %[[VALUES]], %[[INDEX]], %[[OFFSET]], %[[STRIDE]], %[[REORDER]], %[[BIAS]], %[[SKIP]])
// CHECK-SAME:      activation = "relu"
// CHECK-SAME:      format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>
// CHECK-SAME:      pads = array<i64: 1, 1, 1, 1>
// CHECK:         return %[[Y]]
func.func @finds_patterns_and_drops_empty_kernels(
    %x: tensor<1x3x4x4xf32>, %bias: tensor<2xf32>, %skip: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = arith.constant dense<[
    [[[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]],
     [[9., 1., 0.], [2., 3., 0.], [0., 0., 0.]],
     [[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]]],
    [[[1., 2., 0.], [3., 4., 0.], [0., 0., 0.]],
     [[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]],
     [[0., 5., 6.], [0., 7., 8.], [0., 0., 0.]]]]> : tensor<2x3x3x3xf32>
  %y = "pattern.conv2d"(%x, %w, %bias, %skip) {activation = "relu", dilations = array<i64: 1, 1>,
    groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 1, 1>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>}
    : (tensor<1x3x4x4xf32>, tensor<2x3x3x3xf32>, tensor<2xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @stores_zeros_where_a_kernel_has_fewer_entries
// CHECK:         arith.constant dense<{{\[\[}}1.{{.*}}, 2.{{.*}}, 3.{{.*}}, 4.{{.*}}], [5.{{.*}}, 0.{{.*}}, 0.{{.*}}, 6.{{.*}}]]> : tensor<2x4xf32>
// CHECK:         "pattern.sparse_conv2d"
// CHECK-SAME:      array<i64: 27>>
func.func @stores_zeros_where_a_kernel_has_fewer_entries(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x2x2xf32> {
  %w = arith.constant dense<[
    [[[1., 2., 0.], [3., 4., 0.], [0., 0., 0.]],
     [[5., 0., 0.], [0., 6., 0.], [0., 0., 0.]]]]> : tensor<1x2x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x3x3xf32>) -> tensor<1x1x2x2xf32>
  return %y : tensor<1x1x2x2xf32>
}

// -----

// CHECK-LABEL: func.func @numbers_input_channels_across_groups
// CHECK:         arith.constant dense<[0, 3]> : tensor<2xi16>
// CHECK:         "pattern.sparse_conv2d"
// CHECK-SAME:    groups = 2 : i64
// CHECK:         return
func.func @numbers_input_channels_across_groups(%x: tensor<1x4x4x4xf32>) -> tensor<1x2x2x2xf32> {
  %w = arith.constant dense<[
    [[[1., 2., 0.], [3., 4., 0.], [0., 0., 0.]], [[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]]],
    [[[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]], [[1., 2., 0.], [3., 4., 0.], [0., 0., 0.]]]
  ]> : tensor<2x2x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x4x4x4xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// -----

// CHECK-LABEL: func.func @encodes_kernels_of_other_sizes
// CHECK:         arith.constant dense<{{\[\[}}1.{{.*}}, 2.{{.*}}, 3.{{.*}}]]> : tensor<1x3xf32>
// CHECK:         #pattern.fkw<array<i64: 1, 5>, array<i64: 25>>
func.func @encodes_kernels_of_other_sizes(%x: tensor<1x1x4x8xf32>) -> tensor<1x1x4x4xf32> {
  %w = arith.constant dense<[[[[1., 0., 0., 2., 3.]]]]> : tensor<1x1x1x5xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x1x4x8xf32>, tensor<1x1x1x5xf32>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}

// -----

// CHECK-LABEL: func.func @depthwise_kernels_name_their_channel
// CHECK-DAG:     arith.constant dense<{{\[\[}}1.{{.*}}, 2.{{.*}}, 3.{{.*}}, 4.{{.*}}], [5.{{.*}}, 6.{{.*}}, 7.{{.*}}, 8.{{.*}}]]>
// CHECK-DAG:     arith.constant dense<[0, 2]> : tensor<2xi16>
// CHECK-DAG:     arith.constant dense<[0, 1, 1, 2]> : tensor<4xi32>
// CHECK:         "pattern.sparse_conv2d"
// CHECK-SAME:      format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>
func.func @depthwise_kernels_name_their_channel(%x: tensor<1x3x4x4xf32>) -> tensor<1x3x2x2xf32> {
  %w = arith.constant dense<[
    [[[1., 2., 0.], [3., 4., 0.], [0., 0., 0.]]],
    [[[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]]],
    [[[0., 5., 6.], [0., 7., 8.], [0., 0., 0.]]]]> : tensor<3x1x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 3 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x3x4x4xf32>, tensor<3x1x3x3xf32>) -> tensor<1x3x2x2xf32>
  return %y : tensor<1x3x2x2xf32>
}
