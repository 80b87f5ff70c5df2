// RUN: patc-opt --pattern-demote=dtype=f16 --split-input-file %s | filecheck %s
// RUN: patc-opt --pattern-demote=dtype=f16 --pattern-layout=target=aarch64-linux --split-input-file %s | filecheck %s --check-prefix=LAYOUT

// Arguments and results keep f32. Weights and biases are rounded to nearest.

// CHECK-LABEL: func.func @convolution
// CHECK-SAME:    (%[[X:[a-z0-9]+]]: tensor<1x1x4x4xf32>) -> tensor<1x2x4x4xf32>
// CHECK-DAG:     %[[WEIGHT:.*]] = arith.constant dense<{{.*}}1.099610e+00{{.*}}3.332520e-01{{.*}}> : tensor<2x1x1x1xf16>
// CHECK-DAG:     %[[BIAS:.*]] = arith.constant dense<{{\[}}0.000000e+00, 2.050000e+03]> : tensor<2xf16>
// CHECK-DAG:     %[[HALF:.*]] = "pattern.relayout"(%[[X]]) : (tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf16>
// CHECK:         %[[Y:.*]] = "pattern.conv2d"(%[[HALF]], %[[WEIGHT]], %[[BIAS]], %{{.*}})
// CHECK-SAME:      -> tensor<1x2x4x4xf16>
// CHECK:         %[[RESULT:.*]] = "pattern.relayout"(%[[Y]]) : (tensor<1x2x4x4xf16>) -> tensor<1x2x4x4xf32>
// CHECK:         return %[[RESULT]]
func.func @convolution(%x: tensor<1x1x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = arith.constant dense<[[[[1.1]]], [[[0.33333334]]]]> : tensor<2x1x1x1xf32>
  %b = arith.constant dense<[1.0e-9, 2049.3]> : tensor<2xf32>
  %skip = arith.constant dense<1.0> : tensor<1x2x4x4xf32>
  %y = "pattern.conv2d"(%x, %w, %b, %skip) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 1>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x1x4x4xf32>, tensor<2x1x1x1xf32>, tensor<2xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}

// -----

// The arrays that name channels stay as they are.

// CHECK-LABEL: func.func @sparse_convolution
// CHECK:         "pattern.sparse_conv2d"
// CHECK-SAME:      (tensor<1x1x4x4xf16>, tensor<1x2xf16>, tensor<1xi16>, tensor<2xi32>, tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x4x4xf16>
func.func @sparse_convolution(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %values = arith.constant dense<1.> : tensor<1x2xf32>
  %index = arith.constant dense<0> : tensor<1xi16>
  %offset = arith.constant dense<[0, 1]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 1]]> : tensor<1x2xi16>
  %reorder = arith.constant dense<0> : tensor<1xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 1, 3>, array<i64: 3>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 0, 1, 0, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x1x4x4xf32>, tensor<1x2xf32>, tensor<1xi16>, tensor<2xi32>,
    tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}

// -----

// An argument is converted once for all that read it, a result once for all returns.

// CHECK-LABEL: func.func @one_conversion_for_all_uses
// CHECK-COUNT-2: pattern.relayout
// CHECK-NOT:     pattern.relayout
// CHECK:         return %[[Y:.*]], %[[Y]]
func.func @one_conversion_for_all_uses(%x: tensor<1x1x4x4xf32>) -> (tensor<1x16xf32>, tensor<1x16xf32>) {
  %a = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32>
  %b = "pattern.add"(%a, %x) {activation = "none"}
    : (tensor<1x1x4x4xf32>, tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32>
  %y = tensor.collapse_shape %b [[0], [1, 2, 3]] : tensor<1x1x4x4xf32> into tensor<1x16xf32>
  return %y, %y : tensor<1x16xf32>, tensor<1x16xf32>
}

// -----

// The copy that converts is the one that pads.

// LAYOUT-LABEL: func.func @input_is_copied_once
// LAYOUT:         "pattern.relayout"(%{{.*}}) : (tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf16, #pattern.layout<{{.*}} halo = array<i64: 1, 1, 1, 1>
// LAYOUT-NOT:     pattern.relayout
// LAYOUT:         "pattern.max_pool2d"
// LAYOUT:         "pattern.relayout"(%{{.*}}) : (tensor<1x1x4x4xf16, {{.*}} -> tensor<1x1x4x4xf32>
// LAYOUT-NOT:     pattern.relayout
func.func @input_is_copied_once(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %y = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}
