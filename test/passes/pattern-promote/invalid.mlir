// RUN: patc-opt --pattern-promote --split-input-file --verify-diagnostics %s

func.func @bits(%x: tensor<4xf16>) -> tensor<4xi16> {
  // expected-error @below {{'arith.bitcast' op expected numbers whose bits nothing reads, which are computed in f32, got tensor<4xf32>}}
  %0 = arith.bitcast %x : tensor<4xf16> to tensor<4xi16>
  return %0 : tensor<4xi16>
}

// -----

func.func @elided(%x: tensor<4xf16>) -> tensor<4xf16> {
  // expected-error @below {{'arith.constant' op expected values in the text, got dense_resource<__elided__> : tensor<4xf16>}}
  %c = arith.constant dense_resource<__elided__> : tensor<4xf16>
  %e = tensor.empty() : tensor<4xf16>
  %0 = linalg.add ins(%x, %c : tensor<4xf16>, tensor<4xf16>) outs(%e : tensor<4xf16>) -> tensor<4xf16>
  return %0 : tensor<4xf16>
}
