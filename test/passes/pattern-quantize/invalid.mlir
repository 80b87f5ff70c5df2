// RUN: patc-opt --pattern-quantize=target=spirv-vulkan --split-input-file --verify-diagnostics %s

// expected-error @+1 {{'func.func' op expected no ranges of activations for target 'spirv-vulkan', got some}}
func.func @no_kernels(%x: tensor<1x4xf32>) -> tensor<1x4xf32> attributes {pattern.ranges = [array<f32: 0.0, 1.0>]} {
  return %x : tensor<1x4xf32>
}
