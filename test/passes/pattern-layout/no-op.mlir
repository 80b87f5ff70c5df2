// RUN: patc-opt --pattern-layout %s | filecheck %s

// Tensors of other ranks, declared functions and ops of other dialects have no layout.

// CHECK-NOT: pattern.layout
func.func private @declared(tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>

func.func @linear_layer(%x: tensor<2x8xf32>, %w: tensor<4x8xf32>) -> tensor<2x4xf32> {
  %y = "pattern.linear"(%x, %w) {activation = "relu", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x8xf32>, tensor<4x8xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

func.func @other_dialects(%x: tensor<1x2x8x8xf32>, %y: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  %sum = linalg.add ins(%x, %y : tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) outs(%x : tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %sum : tensor<1x2x8x8xf32>
}
