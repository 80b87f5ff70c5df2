// RUN: patc-opt --convert-pattern-to-linalg %s > %t && patc-opt %s | diff - %t

// Linalg stays, and so do parameters: they are constants by name.

func.func @decoded(%input: tensor<2x3xf32>) -> tensor<2x4xf32> {
  %matrix = "pattern.parameter"() {name = "fc.weight"} : () -> tensor<3x4xf32>
  %zero = arith.constant dense<0.0> : tensor<2x4xf32>
  %product = linalg.matmul ins(%input, %matrix : tensor<2x3xf32>, tensor<3x4xf32>)
    outs(%zero : tensor<2x4xf32>) -> tensor<2x4xf32>
  return %product : tensor<2x4xf32>
}
