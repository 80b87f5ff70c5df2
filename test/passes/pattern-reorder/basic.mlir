// RUN: patc-opt --pattern-reorder --split-input-file %s | filecheck %s

// In each case the second filter keeps more kernels than the first, so that it comes first.

// CHECK-LABEL: func.func @consumer_absorbs_the_permutation
// CHECK-DAG:     %[[VALUES:.*]] = arith.constant dense<{{\[\[}}3.{{.*}}, 4.{{.*}}], [5.{{.*}}, 6.{{.*}}], [1.{{.*}}, 2.{{.*}}]]>
// CHECK-DAG:     %[[INDEX:.*]] = arith.constant dense<[0, 1, 0]>
// CHECK-DAG:     %[[OFFSET:.*]] = arith.constant dense<[0, 2, 3]>
// CHECK-DAG:     %[[STRIDE:.*]] = arith.constant dense<{{\[\[}}0, 2], [0, 1]]>
// CHECK-DAG:     %[[REORDER:.*]] = arith.constant dense<[0, 1]>
// CHECK-DAG:     %[[BIAS:.*]] = arith.constant dense<[2.{{.*}}, 1.{{.*}}]>
// CHECK:         %[[Y:.*]] = "pattern.sparse_conv2d"(%{{.*}}, %[[VALUES]], %[[INDEX]], %[[OFFSET]], %[[STRIDE]], %[[REORDER]], %[[BIAS]])
// CHECK:         %[[COLUMNS:.*]] = arith.constant dense<{{\[\[\[\[}}8.{{.*}}]], {{\[\[}}7.{{.*}}]]]]>
// CHECK:         "pattern.conv2d"(%[[Y]], %[[COLUMNS]])
func.func @consumer_absorbs_the_permutation(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %values = arith.constant dense<[[1., 2.], [3., 4.], [5., 6.]]> : tensor<3x2xf32>
  %index = arith.constant dense<[0, 0, 1]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 2]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  %bias = arith.constant dense<[1., 2.]> : tensor<2xf32>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder, %bias) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<3x2xf32>, tensor<3xi16>, tensor<3xi32>,
    tensor<2x2xi16>, tensor<2xi16>, tensor<2xf32>) -> tensor<1x2x4x4xf32>
  %w = arith.constant dense<[[[[7.]], [[8.]]]]> : tensor<1x2x1x1xf32>
  %z = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x4x4xf32>
  return %z : tensor<1x1x4x4xf32>
}

// -----

// A result's channels have a meaning outside: the stored filters are sorted, `reorder` says where they go.

// CHECK-LABEL: func.func @results_keep_their_channels
// CHECK-DAG:     %[[OFFSET:.*]] = arith.constant dense<[0, 2, 3]>
// CHECK-DAG:     %[[REORDER:.*]] = arith.constant dense<[1, 0]>
// CHECK-DAG:     %[[BIAS:.*]] = arith.constant dense<[1.{{.*}}, 2.{{.*}}]>
// CHECK:         "pattern.sparse_conv2d"(%{{.*}}, %{{.*}}, %{{.*}}, %[[OFFSET]], %{{.*}}, %[[REORDER]], %[[BIAS]])
func.func @results_keep_their_channels(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %values = arith.constant dense<[[1., 2.], [3., 4.], [5., 6.]]> : tensor<3x2xf32>
  %index = arith.constant dense<[0, 0, 1]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 2]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  %bias = arith.constant dense<[1., 2.]> : tensor<2xf32>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder, %bias) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 1, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<3x2xf32>, tensor<3xi16>, tensor<3xi32>,
    tensor<2x2xi16>, tensor<2xi16>, tensor<2xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}

// -----

// A flattened channel has a block of columns: here two.

// CHECK-LABEL: func.func @linear_layers_permute_blocks_of_columns
// CHECK:         %[[FLAT:.*]] = tensor.collapse_shape
// CHECK:         %[[COLUMNS:.*]] = arith.constant dense<{{\[\[}}3.{{.*}}, 4.{{.*}}, 1.{{.*}}, 2.{{.*}}]]> : tensor<1x4xf32>
// CHECK:         "pattern.linear"(%[[FLAT]], %[[COLUMNS]])
func.func @linear_layers_permute_blocks_of_columns(%x: tensor<1x2x2x4xf32>) -> tensor<1x1xf32> {
  %values = arith.constant dense<1.> : tensor<3x2xf32>
  %index = arith.constant dense<[0, 0, 1]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 2]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x2x4xf32>, tensor<3x2xf32>, tensor<3xi16>, tensor<3xi32>,
    tensor<2x2xi16>, tensor<2xi16>) -> tensor<1x2x2x4xf32>
  %p = "pattern.max_pool2d"(%y) {dilations = array<i64: 1, 1>, kernel = array<i64: 2, 2>,
    pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 2, 2>} : (tensor<1x2x2x4xf32>) -> tensor<1x2x1x2xf32>
  %flat = tensor.collapse_shape %p [[0], [1, 2, 3]] : tensor<1x2x1x2xf32> into tensor<1x4xf32>
  %w = arith.constant dense<[[1., 2., 3., 4.]]> : tensor<1x4xf32>
  %z = "pattern.linear"(%flat, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x1xf32>
  return %z : tensor<1x1xf32>
}

// -----

// The addition ties the light layer to the heavy one: it adopts the order 1, 0 of the channels, and keeps its
// own order of the filters. The depthwise convolution passes the order on.

// CHECK-LABEL: func.func @producers_that_meet_share_one_order
// CHECK:         %[[KEPT:.*]] = arith.constant dense<[1, 0]> : tensor<2xi16>
// CHECK:         %[[LIGHT:.*]] = "pattern.sparse_conv2d"({{.*}}, %[[KEPT]])
// CHECK:         %[[SORTED:.*]] = arith.constant dense<[0, 1]> : tensor<2xi16>
// CHECK:         %[[HEAVY:.*]] = "pattern.sparse_conv2d"({{.*}}, %[[SORTED]])
// CHECK:         %[[SUM:.*]] = "pattern.add"(%[[LIGHT]], %[[HEAVY]])
// CHECK:         %[[ROWS:.*]] = arith.constant dense<{{\[\[\[\[}}6.{{.*}}]]], {{\[\[\[}}5.{{.*}}]]]]> : tensor<2x1x1x1xf32>
// CHECK:         %[[DEPTHWISE:.*]] = "pattern.conv2d"(%[[SUM]], %[[ROWS]])
// CHECK:         %[[COLUMNS:.*]] = arith.constant dense<{{\[\[\[\[}}8.{{.*}}]], {{\[\[}}7.{{.*}}]]]]> : tensor<1x2x1x1xf32>
// CHECK:         "pattern.conv2d"(%[[DEPTHWISE]], %[[COLUMNS]])
func.func @producers_that_meet_share_one_order(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %light_values = arith.constant dense<1.> : tensor<2x2xf32>
  %light_index = arith.constant dense<[0, 1]> : tensor<2xi16>
  %light_offset = arith.constant dense<[0, 1, 2]> : tensor<3xi32>
  %light_stride = arith.constant dense<[[0, 1], [0, 1]]> : tensor<2x2xi16>
  %light_reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  %light = "pattern.sparse_conv2d"(%x, %light_values, %light_index, %light_offset, %light_stride,
    %light_reorder) {activation = "none", dilations = array<i64: 1, 1>,
    format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<2x2xf32>, tensor<2xi16>, tensor<3xi32>,
    tensor<2x2xi16>, tensor<2xi16>) -> tensor<1x2x4x4xf32>
  %values = arith.constant dense<1.> : tensor<3x2xf32>
  %index = arith.constant dense<[0, 0, 1]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 2]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  %heavy = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<3x2xf32>, tensor<3xi16>, tensor<3xi32>,
    tensor<2x2xi16>, tensor<2xi16>) -> tensor<1x2x4x4xf32>
  %sum = "pattern.add"(%light, %heavy) {activation = "none"}
    : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %rows = arith.constant dense<[[[[5.]]], [[[6.]]]]> : tensor<2x1x1x1xf32>
  %y = "pattern.conv2d"(%sum, %rows) {activation = "none", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x4x4xf32>
  %columns = arith.constant dense<[[[[7.]], [[8.]]]]> : tensor<1x2x1x1xf32>
  %z = "pattern.conv2d"(%y, %columns) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x4x4xf32>
  return %z : tensor<1x1x4x4xf32>
}

// -----

// The second layer reads the renumbered channels, and sorts its kernels by them again.

// CHECK-LABEL: func.func @sparse_consumers_renumber_and_sort_their_kernels
// CHECK:         %[[Y:.*]] = "pattern.sparse_conv2d"
// CHECK-DAG:     %[[VALUES:.*]] = arith.constant dense<{{\[\[}}3.{{.*}}, 4.{{.*}}], [1.{{.*}}, 2.{{.*}}]]> : tensor<2x2xf32>
// CHECK-DAG:     %[[INDEX:.*]] = arith.constant dense<[0, 1]> : tensor<2xi16>
// CHECK:         "pattern.sparse_conv2d"(%[[Y]], %[[VALUES]], %[[INDEX]]
func.func @sparse_consumers_renumber_and_sort_their_kernels(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %values = arith.constant dense<1.> : tensor<3x2xf32>
  %index = arith.constant dense<[0, 0, 1]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 2]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<3x2xf32>, tensor<3xi16>, tensor<3xi32>,
    tensor<2x2xi16>, tensor<2xi16>) -> tensor<1x2x4x4xf32>
  %values2 = arith.constant dense<[[1., 2.], [3., 4.]]> : tensor<2x2xf32>
  %index2 = arith.constant dense<[0, 1]> : tensor<2xi16>
  %offset2 = arith.constant dense<[0, 2]> : tensor<2xi32>
  %pattern_offsets2 = arith.constant dense<[[0, 2]]> : tensor<1x2xi16>
  %reorder2 = arith.constant dense<0> : tensor<1xi16>
  %z = "pattern.sparse_conv2d"(%y, %values2, %index2, %offset2, %pattern_offsets2, %reorder2) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<2x2xf32>, tensor<2xi16>, tensor<2xi32>,
    tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x4x4xf32>
  return %z : tensor<1x1x4x4xf32>
}

// -----

// The kernels of the second layer read nine consecutive channels: these keep their numbers, and `reorder` says which
// one a stored filter of the first layer computes.

// CHECK-LABEL: func.func @kernels_that_span_channels_keep_them
// CHECK-DAG:     %[[OFFSET:.*]] = arith.constant dense<[0, 2, 3, 4, 5, 6, 7, 8, 9, 10]> : tensor<10xi32>
// CHECK-DAG:     %[[REORDER:.*]] = arith.constant dense<[8, 0, 1, 2, 3, 4, 5, 6, 7]> : tensor<9xi16>
// CHECK:         %[[Y:.*]] = "pattern.sparse_conv2d"(%{{.*}}, %{{.*}}, %{{.*}}, %[[OFFSET]], %{{.*}}, %[[REORDER]])
// CHECK-DAG:     %[[VALUES:.*]] = arith.constant dense<{{\[\[}}1.{{.*}}, 2.{{.*}}]]> : tensor<1x2xf32>
// CHECK-DAG:     %[[INDEX:.*]] = arith.constant dense<0> : tensor<1xi16>
// CHECK:         "pattern.sparse_conv2d"(%[[Y]], %[[VALUES]], %[[INDEX]]
func.func @kernels_that_span_channels_keep_them(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %values = arith.constant dense<1.> : tensor<10x2xf32>
  %index = arith.constant dense<[0, 0, 0, 0, 0, 0, 0, 0, 0, 1]> : tensor<10xi16>
  %offset = arith.constant dense<[0, 1, 2, 3, 4, 5, 6, 7, 8, 10]> : tensor<10xi32>
  %pattern_offsets = arith.constant dense<
    [[0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 2]]> : tensor<9x2xi16>
  %reorder = arith.constant dense<[0, 1, 2, 3, 4, 5, 6, 7, 8]> : tensor<9xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x4x4xf32>, tensor<10x2xf32>, tensor<10xi16>, tensor<10xi32>,
    tensor<9x2xi16>, tensor<9xi16>) -> tensor<1x9x4x4xf32>
  %values2 = arith.constant dense<[[1., 2.]]> : tensor<1x2xf32>
  %index2 = arith.constant dense<0> : tensor<1xi16>
  %offset2 = arith.constant dense<[0, 1]> : tensor<2xi32>
  %pattern_offsets2 = arith.constant dense<[[0, 1]]> : tensor<1x2xi16>
  %reorder2 = arith.constant dense<0> : tensor<1xi16>
  %z = "pattern.sparse_conv2d"(%y, %values2, %index2, %offset2, %pattern_offsets2, %reorder2) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 257>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 0, 0, 0>,
    strides = array<i64: 1, 1>} : (tensor<1x9x4x4xf32>, tensor<1x2xf32>, tensor<1xi16>, tensor<2xi32>,
    tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x4x4xf32>
  return %z : tensor<1x1x4x4xf32>
}
