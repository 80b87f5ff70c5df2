// REQUIRES: vulkan
// RUN: patc devices | filecheck %s --check-prefix=DEVICES
// RUN: patc compile %s --target spirv-vulkan -o %t.patc | filecheck %s --check-prefix=SUMMARY
// RUN: patc run %t.patc | filecheck %s --check-prefix=OUTPUT
// RUN: patc run %t.patc --device 0 | filecheck %s --check-prefix=OUTPUT
// RUN: patc run %s --target spirv-vulkan --device 0 | filecheck %s --check-prefix=OUTPUT
// RUN: patc run %t.patc --profile | filecheck %s --check-prefix=PROFILE
// RUN: patc report %t.patc | filecheck %s --check-prefix=REPORT
// RUN: not patc run %t.patc --device nothing 2>&1 | filecheck %s --check-prefix=NO-DEVICE
// RUN: not patc run %s --device 0 2>&1 | filecheck %s --check-prefix=NO-GPU

// DEVICES:   {{^}}* {{ *[0-9]+ }}
// SUMMARY:   1 layer (0 with dense weights), 0  of 0  weights, {{.*}}; target spirv-vulkan
// OUTPUT:    output [1, 2, 4, 4]: from 0 to
// PROFILE:   elementwise
// PROFILE:   layers: {{[0-9.]+ [num]?s}}
// PROFILE:   1 dispatches in one submit; overhead {{[0-9.]+}} ms a submit, {{[0-9.]+}} ms a dispatch
// REPORT:    elementwise, 1x4, lanes 4, {{[0-9]+}} threads by pixels: best of 2 tiles, bound by memory
// NO-DEVICE: patc: error: expected a Vulkan device of 0 '{{.*}}', got 'nothing'
// NO-GPU:    patc: error: expected no device together with a model for target 'host', got '0'

func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  return %y : tensor<1x2x4x4xf32>
}
