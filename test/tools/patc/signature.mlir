// RUN: not patc compile %s -o %t.patc 2>&1 | filecheck %s

// CHECK: patc: error: {{.*}}signature.mlir:5:1: expected @main to take and return tensors of static shape, of f64, {{.*}}, got tensor<4xf8E5M2>

func.func @main(%x: tensor<4xf8E5M2>) -> tensor<4xf8E5M2> {
  return %x : tensor<4xf8E5M2>
}
