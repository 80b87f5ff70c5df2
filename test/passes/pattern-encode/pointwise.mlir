// RUN: patc-opt --pattern-encode --split-input-file %s | filecheck %s
// RUN: patc-opt --pattern-encode="library=54,27" --split-input-file %s | filecheck %s --check-prefix=GIVEN

// Nine input channels of one filter are one kernel, its first channel the index.

// CHECK-LABEL: func.func @groups_of_nine_channels
// CHECK-SAME:    %[[X:.*]]: tensor<1x18x4x4xf32>
// CHECK-DAG:     %[[VALUES:.*]] = arith.constant dense<{{\[\[}}5.{{.*}}, 6.{{.*}}, 7.{{.*}}, 8.{{.*}}], [1.{{.*}}, 2.{{.*}}, 3.{{.*}}, 4.{{.*}}], [9.{{.*}}, 1.{{.*}}, 2.{{.*}}, 3.{{.*}}]]>
// CHECK-DAG:     %[[INDEX:.*]] = arith.constant dense<[9, 0, 9]> : tensor<3xi16>
// CHECK-DAG:     %[[OFFSET:.*]] = arith.constant dense<[0, 2, 3]> : tensor<3xi32>
// CHECK-DAG:     %[[STRIDE:.*]] = arith.constant dense<{{\[\[}}0, 1, 2], [0, 1, 1]]> : tensor<2x3xi16>
// CHECK:         "pattern.sparse_conv2d"(%[[X]], %[[VALUES]], %[[INDEX]], %[[OFFSET]], %[[STRIDE]],
// CHECK-SAME:      format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 54>>
// CHECK-SAME:      strides = array<i64: 2, 2>
// GIVEN:         format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 54, 27>>
func.func @groups_of_nine_channels(%x: tensor<1x18x4x4xf32>) -> tensor<1x2x2x2xf32> {
  %w = arith.constant dense<[
    [[[0.]], [[1.]], [[2.]], [[0.]], [[3.]], [[4.]], [[0.]], [[0.]], [[0.]],
     [[5.]], [[6.]], [[0.]], [[7.]], [[8.]], [[0.]], [[0.]], [[0.]], [[0.]]],
    [[[0.]], [[0.]], [[0.]], [[0.]], [[0.]], [[0.]], [[0.]], [[0.]], [[0.]],
     [[9.]], [[1.]], [[0.]], [[2.]], [[3.]], [[0.]], [[0.]], [[0.]], [[0.]]]]> : tensor<2x18x1x1xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 2, 2>}
    : (tensor<1x18x4x4xf32>, tensor<2x18x1x1xf32>) -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// -----

// Channels 9 to 13 are a rest of five: four of them take a new pattern, 27 has the other one. Both kernels start at
// channel 5, nine before the end. The second filter needs one.

// CHECK-LABEL: func.func @rest_of_fewer_channels
// CHECK-DAG:     arith.constant dense<{{\[\[}}1.{{.*}}, 2.{{.*}}, 3.{{.*}}, 4.{{.*}}], [0.{{.*}}, 0.{{.*}}, 0.{{.*}}, 5.{{.*}}], [6.{{.*}}, 7.{{.*}}, 8.{{.*}}, 9.{{.*}}], [0.{{.*}}, 1.{{.*}}, 2.{{.*}}, 0.{{.*}}]]>
// CHECK-DAG:     arith.constant dense<[0, 5, 5, 5]> : tensor<4xi16>
// CHECK-DAG:     arith.constant dense<[0, 3, 4]> : tensor<3xi32>
// CHECK-DAG:     arith.constant dense<{{\[\[}}0, 2, 3], [0, 0, 1]]> : tensor<2x3xi16>
// CHECK:         format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 480>>
// GIVEN-LABEL: func.func @rest_of_fewer_channels
// GIVEN:         format = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 54, 27, 480>>
func.func @rest_of_fewer_channels(%x: tensor<1x14x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = arith.constant dense<[
    [[[1.]], [[2.]], [[0.]], [[3.]], [[4.]], [[0.]], [[0.]], [[0.]], [[0.]],
     [[5.]], [[6.]], [[7.]], [[8.]], [[9.]]],
    [[[0.]], [[0.]], [[0.]], [[0.]], [[0.]], [[0.]], [[0.]], [[0.]], [[0.]],
     [[0.]], [[0.]], [[1.]], [[2.]], [[0.]]]]> : tensor<2x14x1x1xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x14x4x4xf32>, tensor<2x14x1x1xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}
