// RUN: patc-opt --pass-pipeline='builtin.module(canonicalize,pattern-raise,func.func(cse),pattern-schedule{threads=2},cse)' %s | filecheck %s
// RUN: patc-opt --pass-pipeline='pattern-raise, func.func(canonicalize{max-iterations=3}, cse), pattern-schedule{ threads=2 }' %s | filecheck %s

// patc's own passes and MLIR's mix in one string.

// CHECK-LABEL: @raises_and_merges
func.func @raises_and_merges(%x: tensor<1x2x6x6xf32>, %w: tensor<2x2x1x1xf32>) -> (tensor<1x2x6x6xf32>, tensor<1x2x6x6xf32>) {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<1x2x6x6xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x2x6x6xf32>) -> tensor<1x2x6x6xf32>
  // CHECK: %[[Y:.*]] = "pattern.conv2d"
  // CHECK-SAME: threads = 2
  // CHECK-NEXT: return %[[Y]], %[[Y]]
  %y = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
    ins(%x, %w : tensor<1x2x6x6xf32>, tensor<2x2x1x1xf32>) outs(%init : tensor<1x2x6x6xf32>) -> tensor<1x2x6x6xf32>
  %z = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
    ins(%x, %w : tensor<1x2x6x6xf32>, tensor<2x2x1x1xf32>) outs(%init : tensor<1x2x6x6xf32>) -> tensor<1x2x6x6xf32>
  return %y, %z : tensor<1x2x6x6xf32>, tensor<1x2x6x6xf32>
}
