// RUN: patc-opt --pattern-fold-batch-norm %s > %t && patc-opt %s | diff - %t
// RUN: patc-opt --pattern-fold-batch-norm %s 2>&1 | filecheck %s

// Convolutions with a bias, residual sums, activations, pooling, and dead ops stay, without a remark.

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>

// CHECK-NOT: remark
func.func @nothing_per_channel(%x: tensor<1x1x2x2xf32>, %skip: tensor<1x2x2x2xf32>) -> tensor<1x2x1x1xf32> {
  %zero = arith.constant 0.0 : f32
  %four = arith.constant 4.0 : f32
  %w = arith.constant dense<1.> : tensor<2x1x1x1xf32>
  %b = arith.constant dense<[1., 2.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  %dead = tensor.empty() : tensor<3xf32>
  %init = linalg.broadcast ins(%b : tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) dimensions = [0, 2, 3]
  %conv = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %sum = linalg.generic {indexing_maps = [#all, #all, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %skip : tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%lhs: f32, %rhs: f32, %out: f32):
    %0 = arith.addf %lhs, %rhs : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  %relu = linalg.generic {indexing_maps = [#all, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%sum : tensor<1x2x2x2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %out: f32):
    %0 = arith.cmpf ugt, %in, %zero : f32
    %1 = arith.select %0, %in, %zero : f32
    linalg.yield %1 : f32
  } -> tensor<1x2x2x2xf32>
  %small = tensor.empty() : tensor<1x2x1x1xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%small : tensor<1x2x1x1xf32>) -> tensor<1x2x1x1xf32>
  %pool = linalg.pooling_nchw_sum ins(%relu, %window : tensor<1x2x2x2xf32>, tensor<2x2xf32>)
    outs(%zeros : tensor<1x2x1x1xf32>) -> tensor<1x2x1x1xf32>
  %mean = linalg.generic {indexing_maps = [#all, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%pool : tensor<1x2x1x1xf32>) outs(%small : tensor<1x2x1x1xf32>) {
  ^bb0(%in: f32, %out: f32):
    %0 = arith.divf %in, %four : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x1x1xf32>
  return %mean : tensor<1x2x1x1xf32>
}
