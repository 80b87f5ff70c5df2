// RUN: patc-opt %s > %t
// RUN: patc-opt --pattern-promote %s | diff %t -

func.func @returned_as_it_came(%x: tensor<4xf16>, %y: tensor<4xf64>) -> (tensor<4xf16>, tensor<4xbf16>, tensor<4xf64>) {
  %c = arith.constant dense<1.5> : tensor<4xbf16>
  %e = tensor.empty() : tensor<4xf64>
  %0 = linalg.exp ins(%y : tensor<4xf64>) outs(%e : tensor<4xf64>) -> tensor<4xf64>
  return %x, %c, %0 : tensor<4xf16>, tensor<4xbf16>, tensor<4xf64>
}
