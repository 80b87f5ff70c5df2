// RUN: not patc-opt --pattern-raise="late" %s 2>&1 | filecheck %s

// Nothing is refused but options: what is no layer stays, see left.mlir.

// CHECK: pass 'pattern-raise' has no option 'late'; it has dtype
func.func @net(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  return %x : tensor<4x4xf32>
}
