// RUN: patc-opt --pattern-layout --pattern-schedule --pattern-specialize %s | filecheck %s

// An argument that is a result as well is copied.

// CHECK-LABEL: func.func @returns_its_argument
// CHECK-SAME:    (%[[X:.*]]: memref<128xf32>, %{{.*}}: memref<128xf32>, %[[SAME:.*]]: memref<128xf32>,
// CHECK:         memref.copy %[[X]], %[[SAME]]
// CHECK-NOT:     memref.copy
func.func @returns_its_argument(%x: tensor<1x1x8x16xf32>) -> (tensor<1x1x8x16xf32>, tensor<1x1x8x16xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x1x8x16xf32>) -> tensor<1x1x8x16xf32>
  return %y, %x : tensor<1x1x8x16xf32>, tensor<1x1x8x16xf32>
}
