// RUN: patc-opt --pattern-raise %s | filecheck %s --check-prefix=INTEGERS
// RUN: patc-opt --pattern-raise=dtype=f16 %s | filecheck %s --check-prefix=FLOATS

// What integers stand for is arithmetic where there are no kernels on them.

// INTEGERS-COUNT-2: pattern.relayout
// FLOATS-NOT:       quantised
// FLOATS:           arith.divf
// FLOATS:           math.roundeven
// FLOATS:           arith.maximumf
// FLOATS:           arith.minimumf
// FLOATS:           arith.mulf
// FLOATS-NOT:       quantised
func.func @fake(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
  %q = "pattern.relayout"(%x) : (tensor<1x4xf32>) -> tensor<1x4x!pattern.quantised<si8, 0.5 : f32, 3 : i64>>
  %d = "pattern.relayout"(%q) : (tensor<1x4x!pattern.quantised<si8, 0.5 : f32, 3 : i64>>) -> tensor<1x4xf32>
  return %d : tensor<1x4xf32>
}
