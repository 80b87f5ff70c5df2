// RUN: patc-opt --pattern-quantize=target=x86-64-v4 --split-input-file --verify-diagnostics %s | filecheck %s

// Weights become integers in memory, with a scale for each filter; what is computed stays f32, and so does the bias.

// CHECK-LABEL: func.func @a_byte
// CHECK-DAG:     %[[WEIGHT:.*]] = arith.constant dense<{{\[\[}}127, -64], [0, 0]]> : tensor<2x2xi8>
// CHECK-DAG:     %[[BIAS:.*]] = arith.constant dense<[0.{{0*}}e+00, 5.{{0*}}e-01]> : tensor<2xf32>
// CHECK:         "pattern.linear"(%{{.*}}, %[[WEIGHT]], %[[BIAS]])
// CHECK-SAME:      scales = array<f32: 0.00787401571, 0.000000e+00>
// CHECK-SAME:      -> tensor<1x2xf32>
// CHECK-NOT:     pattern.weight_bits
func.func @a_byte(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
  %w = arith.constant dense<[[1.0, -0.502], [0.0, 0.0]]> : tensor<2x2xf32>
  %b = arith.constant dense<[0.0, 0.5]> : tensor<2xf32>
  // expected-remark @+1 {{its weights take a byte each, with a signal-to-noise of}}
  %y = "pattern.linear"(%x, %w, %b) {activation = "relu", operandSegmentSizes = array<i32: 1, 1, 1, 0>,
    pattern.weight_bits = 8 : i64} : (tensor<1x2xf32>, tensor<2x2xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

// One bit is 1 or -1, times the mean magnitude of the filter.

// CHECK-LABEL: func.func @a_bit
// CHECK-DAG:     %[[WEIGHT:.*]] = arith.constant dense<{{\[\[}}true, false], [false, true]]> : tensor<2x2xi1>
// CHECK:         "pattern.linear"(%{{.*}}, %[[WEIGHT]]) {{.*}}scales = array<f32: 2.000000e+00, 2.500000e-01>
func.func @a_bit(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
  %w = arith.constant dense<[[1.0, -3.0], [-0.25, 0.25]]> : tensor<2x2xf32>
  // expected-remark @+1 {{its weights take a bit each, with a signal-to-noise of 7.0 dB}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    pattern.weight_bits = 1 : i64} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

// What is 1 or -1 times a number is stored in bits, exactly.

// CHECK-LABEL: func.func @binarised
// CHECK-DAG:     arith.constant dense<{{\[\[}}true, false], [false, true]]> : tensor<2x2xi1>
func.func @binarised(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
  %w = arith.constant dense<[[0.3, -0.3], [-0.7, 0.7]]> : tensor<2x2xf32>
  // expected-remark @+1 {{its weights take a bit each, exactly}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    pattern.weight_bits = 8 : i64} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

// CHECK-LABEL: func.func @recurrent
// CHECK:         "pattern.recurrent"(%{{.*}}, %{{.*}}, %{{.*}}) {{.*}}scales = array<f32: 1.000000e+00, 1.000000e+00>{{.*}}tensor<2x2xi1>
func.func @recurrent(%x: tensor<5x1x2xf32>, %h: tensor<1x1x2xf32>) -> tensor<5x1x2xf32> {
  %w = arith.constant dense<[[1.0, -1.0], [-1.0, 1.0]]> : tensor<2x2xf32>
  // expected-remark @+1 {{its weights take a bit each, exactly}}
  %y:2 = "pattern.recurrent"(%x, %w, %h) {activations = ["relu"], direction = "forward", mode = "rnn",
    operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 0, 0>, pattern.weight_bits = 1 : i64,
    resultSegmentSizes = array<i32: 1, 1, 0>}
    : (tensor<5x1x2xf32>, tensor<2x2xf32>, tensor<1x1x2xf32>) -> (tensor<5x1x2xf32>, tensor<1x1x2xf32>)
  return %y#0 : tensor<5x1x2xf32>
}

// -----

// A recurrent layer most of whose weights are zeros is stored without these.

// CHECK-LABEL: func.func @zeros
// CHECK:         "pattern.recurrent"{{.*}}tensor<2x2xf32>
func.func @zeros(%x: tensor<5x1x2xf32>, %h: tensor<1x1x2xf32>) -> tensor<5x1x2xf32> {
  %w = arith.constant dense<[[1.0, 0.0], [0.0, 0.0]]> : tensor<2x2xf32>
  // expected-remark @+1 {{its weights stay in f32: its zeros are left out}}
  %y:2 = "pattern.recurrent"(%x, %w, %h) {activations = ["relu"], direction = "forward", mode = "rnn",
    operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 0, 0>, pattern.weight_bits = 8 : i64,
    resultSegmentSizes = array<i32: 1, 1, 0>}
    : (tensor<5x1x2xf32>, tensor<2x2xf32>, tensor<1x1x2xf32>) -> (tensor<5x1x2xf32>, tensor<1x1x2xf32>)
  return %y#0 : tensor<5x1x2xf32>
}

// -----

// CHECK-LABEL: func.func @no_constants
// CHECK:         "pattern.linear"{{.*}}tensor<2x2xf32>)
func.func @no_constants(%x: tensor<1x2xf32>, %w: tensor<2x2xf32>) -> tensor<1x2xf32> {
  // expected-remark @+1 {{its weights stay in f32: they are no constants of f32}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    pattern.weight_bits = 8 : i64} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

// CHECK-LABEL: func.func @infinite
func.func @infinite(%x: tensor<1x2xf32>) -> tensor<1x2xf32> {
  %w = arith.constant dense<[[1.0, 0x7F800000], [0.0, 0.0]]> : tensor<2x2xf32>
  // expected-remark @+1 {{its weights stay in f32: they are not finite}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    pattern.weight_bits = 8 : i64} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

// CHECK-LABEL: func.func @packs
func.func @packs(%x: tensor<1x32xf32>, %v: tensor<1x16xf32>, %i: tensor<1x16xi8>, %c: tensor<1x1xi8>,
                 %r: tensor<16xi16>) -> tensor<1x16xf32> {
  // expected-remark @+1 {{its weights stay in f32: its zeros are left out}}
  %y = "pattern.sparse_linear"(%x, %v, %i, %c, %r) {activation = "none", format = #pattern.packs<32 : i64, array<i64: 1, 1>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 0, 0, 0, 0>, pattern.weight_bits = 8 : i64}
    : (tensor<1x32xf32>, tensor<1x16xf32>, tensor<1x16xi8>, tensor<1x1xi8>, tensor<16xi16>) -> tensor<1x16xf32>
  return %y : tensor<1x16xf32>
}

// -----

func.func @bits(%x: tensor<1x2xf32>, %w: tensor<2x2xf32>) -> tensor<1x2xf32> {
  // expected-error @+1 {{'pattern.linear' op expected pattern.weight_bits to be 8 or 1, got 4 : i64}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    pattern.weight_bits = 4 : i64} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

func.func @no_layer(%x: tensor<1x2xf32>) -> tensor<2x1xf32> {
  // expected-error @+1 {{'tensor.collapse_shape' op expected no pattern.weight_bits on what is no layer, got 8}}
  %y = tensor.collapse_shape %x [[0, 1]] {pattern.weight_bits = 8 : i64} : tensor<1x2xf32> into tensor<2xf32>
  %z = tensor.expand_shape %y [[0, 1]] output_shape [2, 1] : tensor<2xf32> into tensor<2x1xf32>
  return %z : tensor<2x1xf32>
}
