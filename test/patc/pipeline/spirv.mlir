// RUN: patc-opt --pass-pipeline='builtin.module(pattern-fold-batch-norm,pattern-raise,pattern-encode,pattern-reorder,pattern-demote,pattern-layout{target=spirv-vulkan},pattern-schedule{target=spirv-vulkan},pattern-map-to-gpu,pattern-to-spirv)' %s | filecheck %s

// The passes of Pipeline.named("spirv"), from linalg to SPIR-V.

// CHECK-LABEL: func.func @main
// CHECK:         gpu.launch_func @elementwise_0::@elementwise_0
// CHECK:         gpu.launch_func @pattern_direct_0::@pattern_direct_0
// CHECK:       spirv.module @__spv__elementwise_0
// CHECK:       spirv.module @__spv__pattern_direct_0

func.func @main(%x: tensor<1x2x16x16xf32>) -> tensor<1x1x14x14xf32> {
  %w = arith.constant dense<[[[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]],
                              [[0.0, 0.0, 0.0], [0.0, 5.0, 6.0], [0.0, 7.0, 8.0]]]]> : tensor<1x2x3x3xf32>
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<1x1x14x14xf32>
  %start = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x1x14x14xf32>) -> tensor<1x1x14x14xf32>
  %y = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
    ins(%x, %w : tensor<1x2x16x16xf32>, tensor<1x2x3x3xf32>) outs(%start : tensor<1x1x14x14xf32>) -> tensor<1x1x14x14xf32>
  return %y : tensor<1x1x14x14xf32>
}
