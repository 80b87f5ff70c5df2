// RUN: patc-opt --pattern-to-spirv %s | filecheck %s

// CHECK-NOT:   spirv
// CHECK-LABEL: func.func @no_kernels
func.func @no_kernels(%x: memref<4xf32>) {
  return
}
