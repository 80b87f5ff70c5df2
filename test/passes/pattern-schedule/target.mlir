// RUN: patc-opt --pattern-schedule %s | filecheck %s
// RUN: patc-opt --pattern-schedule=target=x86-64-v4 %s | filecheck %s --check-prefixes=OVERRIDE

// The module says what it is compiled for: here vectors of four elements. An option overrides it.

// CHECK: module attributes {pattern.target = #pattern.target<{cheap_shift = false, core_costs = {line_bytes = 128 : i64},
// CHECK-SAME: name = "toy"
// CHECK: lanes = 4 : i64
// OVERRIDE: lanes = 16 : i64
module attributes {pattern.target = #pattern.target<{
  name = "toy", triple = "x86_64-unknown-linux-gnu", cpu = "", lanes = 4 : i64, registers = 16 : i64,
  fma_lanes = 8 : i64, load_bytes = 16 : i64, pipes = 2 : i64, decoded = 4 : i64, cheap_shift = false,
  core_costs = {line_bytes = 128 : i64}}>} {
  func.func @main(%x: tensor<1x4x8x64xf32>) -> tensor<1x4x8x64xf32> {
    %1 = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x4x8x64xf32>) -> tensor<1x4x8x64xf32>
    return %1 : tensor<1x4x8x64xf32>
  }
}
