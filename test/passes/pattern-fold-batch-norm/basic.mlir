// RUN: patc-opt --pattern-fold-batch-norm --split-input-file %s | filecheck %s

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1, 0, 0)>
#vector = affine_map<(d0) -> (d0)>

// A batch norm as torch-mlir lowers it: variance [0.75, 3.75] + 0.25, mean [1, 2], gamma [2, -4], beta [0.5, 1].
// Scales are 2 / sqrt(1) = 2 and -4 / sqrt(4) = -2; a pruned weight stays 0.0, not -0.0.

// CHECK-LABEL: func.func @folds_batch_norm
// CHECK-SAME:    (%[[X:.*]]: tensor<1x2x3x3xf32>)
// CHECK:         %[[W:.*]] = arith.constant dense<{{\[\[\[\[}}2.0{{.*}}]], {{\[\[}}4.0{{.*}}]]], {{\[\[\[}}0.0{{.*}}]], {{\[\[}}-6.0{{.*}}]]]]> : tensor<2x2x1x1xf32>
// CHECK:         %[[BIAS:.*]] = arith.constant dense<[-1.500000e+00, 5.000000e+00]> : tensor<2xf32>
// CHECK:         %[[INIT:.*]] = linalg.broadcast ins(%[[BIAS]] : tensor<2xf32>)
// CHECK-SAME:      dimensions = [0, 2, 3]
// CHECK:         %[[Y:.*]] = linalg.conv_2d_nchw_fchw
// CHECK-SAME:      ins(%[[X]], %[[W]]
// CHECK-SAME:      outs(%[[INIT]]
// CHECK-NEXT:    return %[[Y]]
func.func @folds_batch_norm(%x: tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32> {
  %zero = arith.constant 0.0 : f32
  %one = arith.constant 1.0 : f32
  %epsilon = arith.constant 0.25 : f64
  %w = arith.constant dense<[[[[1.]], [[2.]]], [[[0.]], [[3.]]]]> : tensor<2x2x1x1xf32>
  %mean = arith.constant dense<[1., 2.]> : tensor<2xf32>
  %variance = arith.constant dense<[0.75, 3.75]> : tensor<2xf32>
  %gamma = arith.constant dense<[2., -4.]> : tensor<2xf32>
  %beta = arith.constant dense<[0.5, 1.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x3x3xf32>
  %v = tensor.empty() : tensor<2xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e : tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %conv = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
    ins(%x, %w : tensor<1x2x3x3xf32>, tensor<2x2x1x1xf32>) outs(%init : tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %0 = linalg.generic {indexing_maps = [#vector, #vector], iterator_types = ["parallel"]}
      ins(%variance : tensor<2xf32>) outs(%v : tensor<2xf32>) {
  ^bb0(%in: f32, %out: f32):
    %a = arith.truncf %epsilon : f64 to f32
    %b = arith.addf %in, %a : f32
    linalg.yield %b : f32
  } -> tensor<2xf32>
  %1 = linalg.generic {indexing_maps = [#vector, #vector], iterator_types = ["parallel"]}
      ins(%0 : tensor<2xf32>) outs(%v : tensor<2xf32>) {
  ^bb0(%in: f32, %out: f32):
    %a = math.sqrt %in : f32
    linalg.yield %a : f32
  } -> tensor<2xf32>
  %2 = linalg.generic {indexing_maps = [#vector, #vector], iterator_types = ["parallel"]}
      ins(%1 : tensor<2xf32>) outs(%v : tensor<2xf32>) {
  ^bb0(%in: f32, %out: f32):
    %a = arith.cmpf one, %in, %zero : f32
    cf.assert %a, "unimplemented: tensor with zero element"
    %b = arith.divf %one, %in : f32
    linalg.yield %b : f32
  } -> tensor<2xf32>
  %mean_3d = tensor.expand_shape %mean [[0, 1, 2]] output_shape [2, 1, 1] : tensor<2xf32> into tensor<2x1x1xf32>
  %3 = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %mean_3d : tensor<1x2x3x3xf32>, tensor<2x1x1xf32>) outs(%e : tensor<1x2x3x3xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %a = arith.subf %in, %c : f32
    linalg.yield %a : f32
  } -> tensor<1x2x3x3xf32>
  %inverse_3d = tensor.expand_shape %2 [[0, 1, 2]] output_shape [2, 1, 1] : tensor<2xf32> into tensor<2x1x1xf32>
  %4 = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%3, %inverse_3d : tensor<1x2x3x3xf32>, tensor<2x1x1xf32>) outs(%e : tensor<1x2x3x3xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %a = arith.mulf %in, %c : f32
    linalg.yield %a : f32
  } -> tensor<1x2x3x3xf32>
  %gamma_3d = tensor.expand_shape %gamma [[0, 1, 2]] output_shape [2, 1, 1] : tensor<2xf32> into tensor<2x1x1xf32>
  %5 = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%4, %gamma_3d : tensor<1x2x3x3xf32>, tensor<2x1x1xf32>) outs(%e : tensor<1x2x3x3xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %a = arith.mulf %in, %c : f32
    linalg.yield %a : f32
  } -> tensor<1x2x3x3xf32>
  %beta_3d = tensor.expand_shape %beta [[0, 1, 2]] output_shape [2, 1, 1] : tensor<2xf32> into tensor<2x1x1xf32>
  %6 = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%5, %beta_3d : tensor<1x2x3x3xf32>, tensor<2x1x1xf32>) outs(%e : tensor<1x2x3x3xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %a = arith.addf %in, %c : f32
    linalg.yield %a : f32
  } -> tensor<1x2x3x3xf32>
  return %6 : tensor<1x2x3x3xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

// The whole chain in one op, numbers among the constants: 10 - (3 * c + bias), on top of a bias of [1, 2].

// CHECK-LABEL: func.func @folds_a_fused_chain_into_an_existing_bias
// CHECK:         arith.constant dense<-3.0{{.*}}> : tensor<2x1x1x1xf32>
// CHECK:         arith.constant dense<[2.000000e+00, -3.000000e+00]> : tensor<2xf32>
// CHECK-NOT:     linalg.generic
func.func @folds_a_fused_chain_into_an_existing_bias(%x: tensor<1x1x2x2xf32>) -> tensor<1x2x2x2xf32> {
  %three = arith.constant 3.0 : f32
  %ten = arith.constant 10.0 : f32
  %w = arith.constant dense<1.> : tensor<2x1x1x1xf32>
  %b = arith.constant dense<[1., 2.]> : tensor<2xf32>
  %shift = arith.constant dense<[5., 7.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  %init = linalg.broadcast ins(%b : tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) dimensions = [0, 2, 3]
  %conv = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %y = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %shift : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %three, %in : f32
    %1 = arith.addf %c, %0 : f32
    %2 = arith.subf %ten, %1 : f32
    linalg.yield %2 : f32
  } -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>

// CHECK-LABEL: func.func @folds_into_depthwise_weights_and_keeps_their_reshape
// CHECK:         %[[W:.*]] = arith.constant dense<{{\[\[\[\[}}2.0{{.*}}]]], {{\[\[\[}}6.0{{.*}}]]]]> : tensor<2x1x1x1xf32>
// CHECK:         %[[FLAT:.*]] = tensor.collapse_shape %[[W]] {{\[\[}}0, 1], [2], [3]]
// CHECK:         linalg.depthwise_conv_2d_nchw_chw
// CHECK-SAME:      %[[FLAT]]
// CHECK-NOT:     linalg.generic
func.func @folds_into_depthwise_weights_and_keeps_their_reshape(%x: tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32> {
  %zero = arith.constant 0.0 : f32
  %w = arith.constant dense<[[[[1.]]], [[[2.]]]]> : tensor<2x1x1x1xf32>
  %scale = arith.constant dense<[2., 3.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %flat = tensor.collapse_shape %w [[0, 1], [2], [3]] : tensor<2x1x1x1xf32> into tensor<2x1x1xf32>
  %conv = linalg.depthwise_conv_2d_nchw_chw ins(%x, %flat : tensor<1x2x2x2xf32>, tensor<2x1x1xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %wide = linalg.broadcast ins(%scale : tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) dimensions = [0, 2, 3]
  %y = linalg.generic {indexing_maps = [#all, #all, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %wide : tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

// Filter 2 g + f of group g has the scale of channel 2 g + f.

// CHECK-LABEL: func.func @folds_into_grouped_weights
// CHECK:         %[[W:.*]] = arith.constant dense<[
// CHECK-SAME:      1.0{{.*}}2.0{{.*}}3.0{{.*}}4.0{{.*}} : tensor<4x1x1x1xf32>
// CHECK:         tensor.expand_shape %[[W]]
// CHECK:         linalg.conv_2d_ngchw_gfchw
// CHECK-NEXT:    tensor.collapse_shape
// CHECK-NEXT:    return
func.func @folds_into_grouped_weights(%x: tensor<1x2x2x2xf32>) -> tensor<1x4x2x2xf32> {
  %zero = arith.constant 0.0 : f32
  %w = arith.constant dense<1.> : tensor<4x1x1x1xf32>
  %scale = arith.constant dense<[1., 2., 3., 4.]> : tensor<4xf32>
  %e = tensor.empty() : tensor<1x4x2x2xf32>
  %e5 = tensor.empty() : tensor<1x2x2x2x2xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e5 : tensor<1x2x2x2x2xf32>) -> tensor<1x2x2x2x2xf32>
  %x5 = tensor.expand_shape %x [[0], [1, 2], [3], [4]] output_shape [1, 2, 1, 2, 2]
    : tensor<1x2x2x2xf32> into tensor<1x2x1x2x2xf32>
  %w5 = tensor.expand_shape %w [[0, 1], [2], [3], [4]] output_shape [2, 2, 1, 1, 1]
    : tensor<4x1x1x1xf32> into tensor<2x2x1x1x1xf32>
  %conv = linalg.conv_2d_ngchw_gfchw ins(%x5, %w5 : tensor<1x2x1x2x2xf32>, tensor<2x2x1x1x1xf32>)
    outs(%init : tensor<1x2x2x2x2xf32>) -> tensor<1x2x2x2x2xf32>
  %flat = tensor.collapse_shape %conv [[0], [1, 2], [3], [4]] : tensor<1x2x2x2x2xf32> into tensor<1x4x2x2xf32>
  %y = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%flat, %scale : tensor<1x4x2x2xf32>, tensor<4xf32>) outs(%e : tensor<1x4x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x4x2x2xf32>
  return %y : tensor<1x4x2x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

// The product folds, the sum is computed apart: the product has another user.

// CHECK-LABEL: func.func @folds_up_to_a_value_with_two_users
// CHECK:         arith.constant dense<[{{.*}}2.0{{.*}}3.0{{.*}}]> : tensor<2x1x1x1xf32>
// CHECK:         %[[CONV:.*]] = linalg.conv_2d_nchw_fchw
// CHECK:         %[[SUM:.*]] = linalg.depthwise_conv_2d_nchw_chw ins(%[[CONV]]
// CHECK:         return %[[CONV]], %[[SUM]]
func.func @folds_up_to_a_value_with_two_users(
    %x: tensor<1x1x2x2xf32>) -> (tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>) {
  %zero = arith.constant 0.0 : f32
  %w = arith.constant dense<1.> : tensor<2x1x1x1xf32>
  %scale = arith.constant dense<[2., 3.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %conv = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %product = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %scale : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  %sum = linalg.generic {indexing_maps = [#all, #channel, #all],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%product, %scale : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.addf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  return %product, %sum : tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>
}
