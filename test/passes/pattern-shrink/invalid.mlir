// RUN: not patc-opt --pattern-shrink=least=2 %s 2>&1 | filecheck %s

// CHECK: pass 'pattern-shrink' has no option 'least'; it has no options

func.func @main(%x: tensor<1x1xf32>) -> tensor<1x1xf32> {
  return %x : tensor<1x1xf32>
}
