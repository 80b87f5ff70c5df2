// RUN: patc-opt --pattern-schedule=target=x86-64-v3 --split-input-file --verify-diagnostics %s

// What passes say of calls of outlined functions is an attribute, which nothing verifies.

func.func private @generic_0(%x: tensor<4xf32>) -> tensor<4xf32> attributes {pattern.outlined} {
  return %x : tensor<4xf32>
}
func.func @words(%x: tensor<4xf32>) -> tensor<4xf32> {
  // expected-error @below {{'func.call' op expected pattern.ops to be a list of words, got dense<1>}}
  %y = func.call @generic_0(%x) {pattern.ops = dense<1> : tensor<2xi64>} : (tensor<4xf32>) -> tensor<4xf32>
  return %y : tensor<4xf32>
}
