// RUN: patc-opt --pattern-fold-batch-norm --split-input-file --verify-diagnostics %s | filecheck %s

// What cannot be folded into a convolution is one of its own.

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

// CHECK-LABEL: func.func @no_convolution_before
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor
// CHECK-DAG:     %[[W:.*]] = arith.constant dense<{{.*}}2.0{{.*}}3.0{{.*}}> : tensor<2x1x1xf32>
// CHECK-DAG:     %[[B:.*]] = arith.constant dense<[2.000000e+00, 3.000000e+00]> : tensor<2xf32>
// CHECK:         %[[INIT:.*]] = linalg.broadcast ins(%[[B]]
// CHECK-NEXT:    %[[Y:.*]] = linalg.depthwise_conv_2d_nchw_chw ins(%[[X]], %[[W]] :{{.*}} outs(%[[INIT]]
// CHECK-NEXT:    return %[[Y]]
func.func @no_convolution_before(%x: tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32> {
  %scale = arith.constant dense<[2., 3.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  // expected-remark @+1 {{not folded into a convolution: its input is an argument}}
  %y = linalg.generic {indexing_maps = [#all, #channel, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%x, %scale : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  // One remark is enough for a chain.
  %z = linalg.generic {indexing_maps = [#all, #channel, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%y, %scale : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.addf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  return %z : tensor<1x2x2x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

// CHECK-LABEL: func.func @after_pooling
// CHECK:         %[[POOL:.*]] = linalg.pooling_nchw_max
// CHECK:         linalg.depthwise_conv_2d_nchw_chw ins(%[[POOL]],
func.func @after_pooling(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x2x2xf32> {
  %least = arith.constant 0xFF800000 : f32
  %scale = arith.constant dense<[2., 3.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  %window = tensor.empty() : tensor<3x3xf32>
  %init = linalg.fill ins(%least : f32) outs(%e : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %pool = linalg.pooling_nchw_max ins(%x, %window : tensor<1x2x4x4xf32>, tensor<3x3xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  // expected-remark @+1 {{not folded into a convolution: its input is the result of 'linalg.pooling_nchw_max'}}
  %y = linalg.generic {indexing_maps = [#all, #channel, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%pool, %scale : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

// CHECK-LABEL: func.func @other_users
// CHECK:         %[[CONV:.*]] = linalg.conv_2d_nchw_fchw
// CHECK:         linalg.depthwise_conv_2d_nchw_chw ins(%[[CONV]],
func.func @other_users(%x: tensor<1x1x2x2xf32>) -> (tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>) {
  %zero = arith.constant 0.0 : f32
  %w = arith.constant dense<1.> : tensor<2x1x1x1xf32>
  %scale = arith.constant dense<[2., 3.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %conv = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  // expected-remark @+1 {{not folded into the convolution: its result has other users}}
  %y = linalg.generic {indexing_maps = [#all, #channel, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %scale : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  return %y, %conv : tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

// CHECK-LABEL: func.func @weights_at_run_time
// CHECK:         %[[CONV:.*]] = linalg.conv_2d_nchw_fchw
// CHECK:         linalg.depthwise_conv_2d_nchw_chw ins(%[[CONV]],
func.func @weights_at_run_time(%x: tensor<1x1x2x2xf32>, %w: tensor<2x1x1x1xf32>) -> tensor<1x2x2x2xf32> {
  %zero = arith.constant 0.0 : f32
  %scale = arith.constant dense<[2., 3.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  // expected-remark @+1 {{what follows is not folded into the convolution: its weights are not constant}}
  %conv = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %y = linalg.generic {indexing_maps = [#all, #channel, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %scale : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channel = affine_map<(d0, d1, d2, d3) -> (d1)>

// CHECK-LABEL: func.func @added_to_a_tensor
// CHECK:         %[[CONV:.*]] = linalg.conv_2d_nchw_fchw
// CHECK:         linalg.depthwise_conv_2d_nchw_chw ins(%[[CONV]],
func.func @added_to_a_tensor(%x: tensor<1x1x2x2xf32>, %init: tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32> {
  %w = arith.constant dense<1.> : tensor<2x1x1x1xf32>
  %scale = arith.constant dense<[2., 3.]> : tensor<2xf32>
  %e = tensor.empty() : tensor<1x2x2x2xf32>
  // expected-remark @+1 {{what follows is not folded into the convolution: its initial value is not constant}}
  %conv = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x1x2x2xf32>, tensor<2x1x1x1xf32>)
    outs(%init : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %y = linalg.generic {indexing_maps = [#all, #channel, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %scale : tensor<1x2x2x2xf32>, tensor<2xf32>) outs(%e : tensor<1x2x2x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x2x2xf32>
  return %y : tensor<1x2x2x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>

// A constant that differs between pixels, and a product of activations: neither is per-channel arithmetic.

// CHECK-LABEL: func.func @not_per_channel
// CHECK:         linalg.conv_2d_nchw_fchw
// CHECK:         linalg.generic
// CHECK:         linalg.generic
func.func @not_per_channel(%x: tensor<1x1x1x2xf32>) -> tensor<1x1x1x2xf32> {
  %zero = arith.constant 0.0 : f32
  %w = arith.constant dense<1.> : tensor<1x1x1x1xf32>
  %map = arith.constant dense<[[[[2., 3.]]]]> : tensor<1x1x1x2xf32>
  %e = tensor.empty() : tensor<1x1x1x2xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e : tensor<1x1x1x2xf32>) -> tensor<1x1x1x2xf32>
  %conv = linalg.conv_2d_nchw_fchw ins(%x, %w : tensor<1x1x1x2xf32>, tensor<1x1x1x1xf32>)
    outs(%init : tensor<1x1x1x2xf32>) -> tensor<1x1x1x2xf32>
  %y = linalg.generic {indexing_maps = [#all, #all, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %map : tensor<1x1x1x2xf32>, tensor<1x1x1x2xf32>) outs(%e : tensor<1x1x1x2xf32>) {
  ^bb0(%in: f32, %c: f32, %out: f32):
    %0 = arith.mulf %in, %c : f32
    linalg.yield %0 : f32
  } -> tensor<1x1x1x2xf32>
  %square = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%y : tensor<1x1x1x2xf32>) outs(%e : tensor<1x1x1x2xf32>) {
  ^bb0(%in: f32, %out: f32):
    %0 = arith.mulf %in, %in : f32
    linalg.yield %0 : f32
  } -> tensor<1x1x1x2xf32>
  return %square : tensor<1x1x1x2xf32>
}

// -----

#all = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>

// Numbers are the same for every channel; what changes nothing vanishes.

// CHECK-LABEL: func.func @numbers
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor
// CHECK:         arith.constant dense<-2.000000e+00> : tensor<2x1x1xf32>
// CHECK:         arith.constant dense<1.000000e+00> : tensor<2xf32>
// CHECK:         %[[Y:.*]] = linalg.depthwise_conv_2d_nchw_chw
// CHECK-NEXT:    return %[[Y]], %[[X]]
func.func @numbers(%x: tensor<1x2x1x2xf32>) -> (tensor<1x2x1x2xf32>, tensor<1x2x1x2xf32>) {
  %one = arith.constant 1.0 : f32
  %two = arith.constant 2.0 : f32
  %e = tensor.empty() : tensor<1x2x1x2xf32>
  // expected-remark @+1 {{not folded into a convolution: its input is an argument}}
  %y = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%x : tensor<1x2x1x2xf32>) outs(%e : tensor<1x2x1x2xf32>) {
  ^bb0(%in: f32, %out: f32):
    %0 = arith.mulf %in, %two : f32
    %1 = arith.subf %one, %0 : f32
    linalg.yield %1 : f32
  } -> tensor<1x2x1x2xf32>
  %z = linalg.generic {indexing_maps = [#all, #all], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%x : tensor<1x2x1x2xf32>) outs(%e : tensor<1x2x1x2xf32>) {
  ^bb0(%in: f32, %out: f32):
    %0 = arith.mulf %in, %one : f32
    linalg.yield %0 : f32
  } -> tensor<1x2x1x2xf32>
  return %y, %z : tensor<1x2x1x2xf32>, tensor<1x2x1x2xf32>
}
