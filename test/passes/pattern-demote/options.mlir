// RUN: patc-opt --pattern-demote="dtype=f32" %s | filecheck %s --check-prefix=F32
// RUN: patc-opt --pattern-demote="dtype=f16" %s | filecheck %s --check-prefix=F16
// RUN: not patc-opt --pattern-demote="dtype=bf16" %s 2>&1 | filecheck %s --check-prefix=VALUE
// RUN: not patc-opt --pattern-demote="type=f16" %s 2>&1 | filecheck %s --check-prefix=OPTION

// F32: "pattern.activate"{{.*}} -> tensor<1x1x4x4xf32>
// F16: "pattern.activate"{{.*}} -> tensor<1x1x4x4xf16>
// VALUE: pass 'pattern-demote' expected option 'dtype' to be one of f32, f16, got 'bf16'
// OPTION: pass 'pattern-demote' has no option 'type'
func.func @net(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}
