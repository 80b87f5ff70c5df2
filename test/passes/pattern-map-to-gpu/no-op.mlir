// RUN: patc-opt --pattern-map-to-gpu %s | filecheck %s

// A function without tensors is left alone.

// CHECK-NOT:   gpu
// CHECK-LABEL: func.func @no_tensors
// CHECK-SAME:    (%[[X:.*]]: memref<4xf32>)
// CHECK-NEXT:    return
func.func @no_tensors(%x: memref<4xf32>) {
  return
}
