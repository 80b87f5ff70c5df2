// RUN: patc-opt --pattern-schedule=target=spirv-vulkan --pattern-map-to-gpu=max-buffer-bytes=65536 %s | filecheck %s
// RUN: not patc-opt --pattern-schedule=target=spirv-vulkan --pattern-map-to-gpu=max-buffer-bytes=4096 %s 2>&1 | filecheck %s --check-prefix=SMALL
// RUN: not patc-opt --pattern-map-to-gpu=max-buffer-bytes=63 %s 2>&1 | filecheck %s --check-prefix=RANGE

// CHECK: gpu.launch_func @elementwise_0::@elementwise_0
// SMALL: options.mlir:8:1: error: 'func.func' op expected activations of at most 4096 bytes, got {{[0-9]+}}
// RANGE: pass 'pattern-map-to-gpu' expected option 'max-buffer-bytes' to be an integer from 64 to 2147483647, got 63
func.func @too_large(%x: tensor<1x2x32x32xf32>) -> tensor<1x2x32x32xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x32x32xf32>) -> tensor<1x2x32x32xf32>
  return %y : tensor<1x2x32x32xf32>
}
