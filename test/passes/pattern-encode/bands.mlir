// RUN: patc-opt --pattern-encode --split-input-file %s | filecheck %s

// Two bands of four filters, of which the first has one column and the second two.

// CHECK-LABEL: func.func @columns_of_neighbouring_filters
// CHECK-DAG:     %[[VALUES:.*]] = arith.constant dense<{{\[\[}}1.{{.*}}, 2.{{.*}}, 3.{{.*}}, 4.{{.*}}], [5.{{.*}}, 0.{{.*}}, 7.{{.*}}, 8.{{.*}}], [9.{{.*}}, 9.{{.*}}, 9.{{.*}}, 9.{{.*}}]]> : tensor<3x4xf32>
// CHECK-DAG:     %[[INDEX:.*]] = arith.constant dense<[2, 0, 3]> : tensor<3xi16>
// CHECK-DAG:     %[[OFFSET:.*]] = arith.constant dense<[0, 1, 3]> : tensor<3xi32>
// CHECK-DAG:     %[[REORDER:.*]] = arith.constant dense<[0, 1, 2, 3, 4, 5, 6, 7]> : tensor<8xi16>
// CHECK:         "pattern.sparse_linear"(%{{.*}}, %[[VALUES]], %[[INDEX]], %[[OFFSET]], %[[REORDER]])
// CHECK-SAME:      format = #pattern.bands<4 : i64, array<i64: 1, 1>>
func.func @columns_of_neighbouring_filters(%x: tensor<2x4xf32>) -> tensor<2x8xf32> {
  %w = arith.constant dense<[
    [0., 0., 1., 0.], [0., 0., 2., 0.], [0., 0., 3., 0.], [0., 0., 4., 0.],
    [5., 0., 0., 9.], [0., 0., 0., 9.], [7., 0., 0., 9.], [8., 0., 0., 9.]]> : tensor<8x4xf32>
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x4xf32>, tensor<8x4xf32>) -> tensor<2x8xf32>
  return %y : tensor<2x8xf32>
}

// -----

// Zeros that are no columns of bands.

// CHECK-LABEL: func.func @single_weights
// CHECK:         "pattern.linear"
func.func @single_weights(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %w = arith.constant dense<[[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]]> : tensor<4x4xf32>
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x4xf32>, tensor<4x4xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}
