// RUN: patc-opt --pattern-outline %s -o %t.1.mlir
// RUN: patc-opt --pattern-outline %t.1.mlir -o %t.2.mlir
// RUN: diff %t.1.mlir %t.2.mlir

func.func @net(%input: tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32> {
  %empty = tensor.empty() : tensor<1x4x8x8xf32>
  %exp = linalg.exp ins(%input : tensor<1x4x8x8xf32>) outs(%empty : tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32>
  %relu = "pattern.activate"(%exp) {activation = "relu"} : (tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32>
  return %relu : tensor<1x4x8x8xf32>
}
