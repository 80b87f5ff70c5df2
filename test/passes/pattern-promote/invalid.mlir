// RUN: patc-opt --pattern-promote --verify-diagnostics %s

func.func @bits(%x: tensor<4xf16>) -> tensor<4xi16> {
  // expected-error @below {{'arith.bitcast' op expected numbers whose bits nothing reads, which are computed in f32, got tensor<4xf32>}}
  %0 = arith.bitcast %x : tensor<4xf16> to tensor<4xi16>
  return %0 : tensor<4xi16>
}
