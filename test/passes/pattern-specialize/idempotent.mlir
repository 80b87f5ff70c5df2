// RUN: patc-opt --pattern-layout --pattern-schedule --pattern-specialize %s > %t.once
// RUN: patc-opt --pattern-specialize %t.once | diff %t.once -

func.func @specialized_once(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}
