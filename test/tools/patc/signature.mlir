// RUN: not patc compile %s -o %t.patc 2>&1 | filecheck %s

// CHECK: patc: error: {{.*}}signature.mlir:5:1: expected @main to take and return tensors of static shape, of f64, {{.*}}, got tensor<?xf32>

func.func @main(%x: tensor<?xf32>) -> tensor<?xf32> {
  return %x : tensor<?xf32>
}
