// RUN: not patc-opt --pattern-outline="ops=1" %s 2>&1 | filecheck %s

// CHECK: pass 'pattern-outline' has no option 'ops'; it has no options
func.func @net(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
  return %x : tensor<4x4xf32>
}
