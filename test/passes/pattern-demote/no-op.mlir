// RUN: patc-opt --split-input-file %s > %t
// RUN: patc-opt --pattern-demote --split-input-file %s | diff %t -
// RUN: patc-opt --pattern-demote=dtype=f32 --split-input-file %s | diff %t -
// RUN: patc-opt --pattern-demote=dtype=f16 --split-input-file %s | filecheck %s

// What goes from an argument or from a constant straight to the caller keeps its precision.

// CHECK-LABEL: func.func @returned_as_it_came
// CHECK-SAME:    (%[[X:[a-z0-9]+]]: tensor<4xf32>, %[[NUMBER:[a-z0-9]+]]: tensor<4xi64>)
// CHECK:         %[[ANCHORS:.*]] = arith.constant dense<1.100000e+00> : tensor<4xf32>
// CHECK-NEXT:    return %[[X]], %[[ANCHORS]], %[[NUMBER]]
func.func @returned_as_it_came(%x: tensor<4xf32>, %number: tensor<4xi64>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xi64>) {
  %anchors = arith.constant dense<1.1> : tensor<4xf32>
  return %x, %anchors, %number : tensor<4xf32>, tensor<4xf32>, tensor<4xi64>
}

// CHECK: func.func private @declared(tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
func.func private @declared(tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>

// -----

// f32 is the default.

func.func @net(%x: tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x1x4x4xf32>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}
