// RUN: patc-opt --pattern-quantize=target=x86-64-v4 --split-input-file %s | filecheck %s
// RUN: patc-opt --pattern-quantize=target=aarch64-linux --split-input-file %s | filecheck %s --check-prefix=ARM
// RUN: patc-opt --pattern-quantize=target=spirv-vulkan --split-input-file %s | filecheck %s --check-prefix=ARM

// Weights become integers with a scale for each filter, the bias one in units of the scales; arguments and results of
// the function stay f32.

// CHECK-LABEL: func.func @two_layers
// CHECK-SAME:    (%[[X:[a-z0-9]+]]: tensor<1x1x4x4xf32>)
// CHECK-DAG:     %[[WEIGHT:.*]] = arith.constant dense<{{.*}}127{{.*}}-127{{.*}}> : tensor<2x1x1x1xi8>
// CHECK-DAG:     %[[BIAS:.*]] = arith.constant dense<[0, 3175]> : tensor<2xi32>
// CHECK-DAG:     %[[Q:.*]] = "pattern.relayout"(%[[X]]) {{.*}} -> tensor<1x1x4x4x!pattern.quantised<ui8, 0.00999999977 : f32, 100 : i64>>
// CHECK:         %[[Y:.*]] = "pattern.conv2d"(%[[Q]], %[[WEIGHT]], %[[BIAS]])
// CHECK-SAME:      activation = "relu"
// CHECK-SAME:      scales = array<f32: 0.00787401571, 0.0157480314>
// CHECK-SAME:      -> tensor<1x2x4x4x!pattern.quantised<ui8, {{.*}} : f32, 0 : i64>>
// CHECK:         %[[Z:.*]] = "pattern.conv2d"(%[[Y]], %{{.*}})
// CHECK-SAME:      -> tensor<1x1x4x4xf32>
// CHECK:         return %[[Z]]
// ARM:           !pattern.quantised<si8, 0.00999999977 : f32, -28 : i64>>
func.func @two_layers(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32>
    attributes {pattern.ranges = [array<f32: -1.0, 1.55>]} {
  %w = arith.constant dense<[[[[1.0]]], [[[-2.0]]]]> : tensor<2x1x1x1xf32>
  %b = arith.constant dense<[0.0, 0.5]> : tensor<2xf32>
  %y = "pattern.conv2d"(%x, %w, %b) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>,
    pattern.range = array<f32: 0.0, 2.5>}
    : (tensor<1x1x4x4xf32>, tensor<2x1x1x1xf32>, tensor<2xf32>) -> tensor<1x2x4x4xf32>
  %v = arith.constant dense<[[[[1.0]], [[-0.5]]]]> : tensor<1x2x1x1xf32>
  %z = "pattern.conv2d"(%y, %v) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>,
    pattern.range = array<f32: -1.0, 2.5>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x1x1xf32>) -> tensor<1x1x4x4xf32>
  return %z : tensor<1x1x4x4xf32>
}

// -----

// A layer that is to be kept reads f32.

// CHECK-LABEL: func.func @kept
// CHECK:         %[[Y:.*]] = "pattern.linear"{{.*}} -> tensor<1x4xf32>
// CHECK:         "pattern.linear"(%[[Y]], %{{.*}}) {{.*}} (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
func.func @kept(%x: tensor<1x4xf32>) -> tensor<1x2xf32> attributes {pattern.ranges = [array<f32: 0.0, 1.0>]} {
  %w = arith.constant dense<1.0> : tensor<4x4xf32>
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    pattern.range = array<f32: 0.0, 4.0>} : (tensor<1x4xf32>, tensor<4x4xf32>) -> tensor<1x4xf32>
  %v = arith.constant dense<1.0> : tensor<2x4xf32>
  %z = "pattern.linear"(%y, %v) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>, pattern.keep}
    : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  return %z : tensor<1x2xf32>
}

// -----

// A correction is a part of the bias on integers, in units of the scales' product, and makes one where there is none.

// CHECK-LABEL: func.func @corrected
// CHECK-DAG:     arith.constant dense<[200, -300]> : tensor<2xi32>
// CHECK-DAG:     arith.constant dense<[200, 9700]> : tensor<2xi32>
// CHECK-NOT:     pattern.correction
func.func @corrected(%x: tensor<1x2xf32>) -> (tensor<1x2xf32>, tensor<1x2xf32>)
    attributes {pattern.ranges = [array<f32: 0.0, 2.55>]} {
  %w = arith.constant dense<[[1.27, 0.0], [0.64, -1.27]]> : tensor<2x2xf32>
  %b = arith.constant dense<[0.0, 1.0]> : tensor<2xf32>
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    pattern.correction = array<f32: 0.02, -0.03>} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  %z = "pattern.linear"(%x, %w, %b) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0>,
    pattern.correction = array<f32: 0.02, -0.03>}
    : (tensor<1x2xf32>, tensor<2x2xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  return %y, %z : tensor<1x2xf32>, tensor<1x2xf32>
}
