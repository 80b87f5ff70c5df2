// RUN: patc-opt --pattern-quantize %s | filecheck %s
// RUN: patc-opt --pattern-quantize --pattern-quantize %s | filecheck %s

// Without ranges nothing changes, and what is quantised is left alone.

// CHECK-LABEL: func.func @no_ranges
// CHECK-NOT:     quantised
// CHECK:         return
func.func @no_ranges(%x: tensor<1x4xf32>) -> tensor<1x2xf32> {
  %w = arith.constant dense<1.0> : tensor<2x4xf32>
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// CHECK-LABEL: func.func @quantised
// CHECK-COUNT-1: pattern.relayout
// CHECK-COUNT-1: pattern.linear
// CHECK-NOT:     "pattern.
func.func @quantised(%x: tensor<1x4xf32>) -> tensor<1x2xf32> attributes {pattern.ranges = [array<f32: 0.0, 1.0>]} {
  %q = "pattern.relayout"(%x) : (tensor<1x4xf32>) -> tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>
  %w = arith.constant dense<1> : tensor<2x4xi8>
  %y = "pattern.linear"(%q, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    scales = array<f32: 1.0, 2.0>}
    : (tensor<1x4x!pattern.quantised<ui8, 0.5 : f32, 3 : i64>>, tensor<2x4xi8>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}
