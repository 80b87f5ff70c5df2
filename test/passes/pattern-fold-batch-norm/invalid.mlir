// RUN: not patc-opt --pattern-fold-batch-norm %s 2>&1 | filecheck %s
// RUN: not patc-opt --pattern-fold-batch-norm="epsilon=1" %s 2>&1 | filecheck %s --check-prefix=OPTION

// OPTION: pass 'pattern-fold-batch-norm' has no option 'epsilon'

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

func.func @infinite_scale(%x: tensor<1x1x2x2xf32>) -> tensor<1x2x2x2xf32> {
  %zero = arith.constant 0.0 : f32
  %w = arith.constant dense<1.> : tensor<2x1x1x1xf32>
  %deviation = arith.constant dense<[2., 0.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  // CHECK: invalid.mlir:[[# @LINE + 1]]:{{.*}} 'linalg.conv_2d_nchw_fchw' op expected finite weights after folding batch norm, got inf in channel 1
  %conv = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %y = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %deviation : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.divf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}
