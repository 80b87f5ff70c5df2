// RUN: patc-opt --pattern-quantize=target=x86-64-v4 %s | filecheck %s

// Numbers that come from integers and become integers, as in files that are quantised: layers between them compute
// the integers, of the sign that the target stores.

// CHECK-LABEL: func.func @between
// CHECK-NOT:     pattern.steps
// CHECK:         %[[Q:.*]] = "pattern.relayout"(%{{.*}}) : (tensor<1x4xf32>) -> tensor<1x4x!pattern.quantised<ui8, 5.000000e-01 : f32, 131 : i64>>
// CHECK:         %[[W:.*]] = arith.constant dense<{{\[\[}}1, 2, 3, -127], [0, 0, 0, 0]]> : tensor<2x4xi8>
// CHECK:         %[[Y:.*]] = "pattern.linear"(%[[Q]], %[[W]]) {{.*}}scales = array<f32: 2.500000e-01, {{.*}}!pattern.quantised<ui8, 2.000000e+00 : f32, 121 : i64>>
// CHECK:         %[[R:.*]] = "pattern.relayout"(%[[Y]])
// CHECK:         return %[[R]]
func.func @between(%x: tensor<1x4xf32>) -> tensor<1x2xf32> attributes {pattern.steps = array<f32: 0.25, 0.3>} {
  %q = "pattern.relayout"(%x) : (tensor<1x4xf32>) -> tensor<1x4x!pattern.quantised<si8, 0.5 : f32, 3 : i64>>
  %d = "pattern.relayout"(%q) : (tensor<1x4x!pattern.quantised<si8, 0.5 : f32, 3 : i64>>) -> tensor<1x4xf32>
  %w = arith.constant dense<[[0.25, 0.5, 0.75, -31.75], [0.0, 0.0, 0.0, 0.0]]> : tensor<2x4xf32>
  %y = "pattern.linear"(%d, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  %p = "pattern.relayout"(%y) : (tensor<1x2xf32>) -> tensor<1x2x!pattern.quantised<si8, 2.0 : f32, -7 : i64>>
  %r = "pattern.relayout"(%p) : (tensor<1x2x!pattern.quantised<si8, 2.0 : f32, -7 : i64>>) -> tensor<1x2xf32>
  return %r : tensor<1x2xf32>
}

// Weights are not rounded without ranges.
// CHECK-LABEL: func.func @no_multiples
// CHECK:         "pattern.linear"{{.*}} : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
func.func @no_multiples(%x: tensor<1x4xf32>) -> tensor<1x2xf32> {
  %q = "pattern.relayout"(%x) : (tensor<1x4xf32>) -> tensor<1x4x!pattern.quantised<si8, 0.5 : f32, 3 : i64>>
  %d = "pattern.relayout"(%q) : (tensor<1x4x!pattern.quantised<si8, 0.5 : f32, 3 : i64>>) -> tensor<1x4xf32>
  %w = arith.constant dense<[[0.2501, 0.5032, 0.751, -31.75], [0.1, 0.02, 0.03, 0.42]]> : tensor<2x4xf32>
  %y = "pattern.linear"(%d, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// A concatenation of different integers is one of copies as what is read.
// CHECK-LABEL: func.func @joined
// CHECK-SAME:    (%[[A:.*]]: tensor<{{.*}}>, %[[B:.*]]: tensor
// CHECK:         %[[P:.*]] = "pattern.relayout"(%[[A]])
// CHECK:         %[[Q:.*]] = "pattern.relayout"(%[[B]])
// CHECK:         %[[C:.*]] = "pattern.relayout"(%[[Q]]) {{.*}} -> tensor<1x4x2x2x!pattern.quantised<ui8, 5.000000e-01 : f32, 3 : i64>>
// CHECK:         tensor.concat dim(1) %[[P]], %[[C]]
func.func @joined(%a: tensor<1x4x2x2xf32>, %b: tensor<1x4x2x2xf32>) -> tensor<1x8x2x2xf32> {
  %p = "pattern.relayout"(%a) : (tensor<1x4x2x2xf32>) -> tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>
  %q = "pattern.relayout"(%b) : (tensor<1x4x2x2xf32>) -> tensor<1x4x2x2x!pattern.quantised<ui8, 0.25 : f32, 3 : i64>>
  %c = "pattern.relayout"(%p) : (tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) -> tensor<1x4x2x2xf32>
  %d = "pattern.relayout"(%q) : (tensor<1x4x2x2x!pattern.quantised<ui8, 0.25 : f32, 3 : i64>>) -> tensor<1x4x2x2xf32>
  %j = tensor.concat dim(1) %c, %d : (tensor<1x4x2x2xf32>, tensor<1x4x2x2xf32>) -> tensor<1x8x2x2xf32>
  %r = "pattern.relayout"(%j) : (tensor<1x8x2x2xf32>) -> tensor<1x8x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>
  %y = "pattern.relayout"(%r) : (tensor<1x8x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) -> tensor<1x8x2x2xf32>
  return %y : tensor<1x8x2x2xf32>
}

// A mean that is read as it is has no kernels on integers.
// CHECK-LABEL: func.func @mean
// CHECK:         "pattern.avg_pool2d"{{.*}} : (tensor<1x4x2x2xf32>) -> tensor<1x4x1x1xf32>
func.func @mean(%x: tensor<1x4x2x2xf32>) -> tensor<1x4x1x1xf32> {
  %q = "pattern.relayout"(%x) : (tensor<1x4x2x2xf32>) -> tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>
  %d = "pattern.relayout"(%q) : (tensor<1x4x2x2x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>) -> tensor<1x4x2x2xf32>
  %y = "pattern.avg_pool2d"(%d) {count_include_pad = true, dilations = array<i64: 1, 1>, kernel = array<i64: 2, 2>,
    pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>} : (tensor<1x4x2x2xf32>) -> tensor<1x4x1x1xf32>
  return %y : tensor<1x4x1x1xf32>
}
