// Every kernel of a net of all kinds of layers is a module that Vulkan 1.1 takes, and the manifest says how to run them.
// REQUIRES: spirv-val
// RUN: rm -rf %t.dir
// RUN: patc compile %s --target spirv-vulkan --emit spirv -o %t.dir | filecheck %s --check-prefix=SUMMARY
// RUN: spirv-val --target-env vulkan1.1 %t.dir/elementwise_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/pattern_direct_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/depthwise_direct_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/pool_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/global_pool_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/gemv_0.spv
// RUN: filecheck %s --check-prefix=MANIFEST < %t.dir/manifest.json
// RUN: rm -rf %t.dir
// RUN: patc compile %s --target spirv-vulkan --dtype f16 --emit spirv -o %t.dir --quiet
// RUN: spirv-val --target-env vulkan1.1 %t.dir/elementwise_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/pattern_direct_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/depthwise_direct_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/pool_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/global_pool_0.spv
// RUN: spirv-val --target-env vulkan1.1 %t.dir/gemv_0.spv
// RUN: filecheck %s --check-prefix=HALF < %t.dir/manifest.json

// SUMMARY: weights.bin, {{.*}}manifest.json: 6 layers {{.*}}; 6 kernels,

// MANIFEST:      "vulkan": "1.1",
// MANIFEST-NEXT: "features": [],
// MANIFEST-NEXT: "limits": {"maxStorageBufferRange": {{[0-9]+}}, "maxPerStageDescriptorStorageBuffers": 2,
// MANIFEST:      {"name": "arena", "set": 0, "binding": 0, "bytes": {{[0-9]+}}},
// MANIFEST-NEXT: {"name": "weights", "set": 0, "binding": 1, "bytes": {{[0-9]+}}, "file": "weights.bin"}
// MANIFEST:      {"offset": 0, "bytes": {{[0-9]+}}}
// MANIFEST:      "inputs": [
// MANIFEST-NEXT: {"name": "arg0", "shape": [1, 2, 16, 16], "type": "float32", "buffer": "arena", "offset": {{[0-9]+}}, "bytes": 2048}
// MANIFEST:      "outputs": [
// MANIFEST-NEXT: {"name": "result0", "shape": [1, 3], "type": "float32", "buffer": "arena", "offset": {{[0-9]+}}, "bytes": 12}
// MANIFEST:      {"name": "pattern_direct_0", "file": "pattern_direct_0.spv", "entry_point": "pattern_direct_0", "workgroup_size": [{{[0-9]+}}, 1, 1],
// MANIFEST:      "kernel": "pattern_direct_0", "window": 0, "workgroups": [{{[0-9]+}}, 2, 1], "push_constants": [{{[0-9, ]+}}]}

// HALF: "features": ["shaderFloat16", "storageBuffer16BitAccess"],

func.func @main(%x: tensor<1x2x16x16xf32>) -> tensor<1x3xf32> {
  %values = arith.constant dense<[[1., 2., 3., 4.], [5., 6., 7., 8.], [1., 1., 1., 1.]]> : tensor<3x4xf32>
  %index = arith.constant dense<[0, 1, 0]> : tensor<3xi16>
  %offset = arith.constant dense<[0, 2, 3]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1, 2], [0, 0, 1]]> : tensor<2x3xi16>
  %reorder = arith.constant dense<[1, 0]> : tensor<2xi16>
  %depthwise = arith.constant dense<0.5> : tensor<2x1x3x3xf32>
  %classes = arith.constant dense<0.25> : tensor<3x2xf32>
  %a = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "relu",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x16x16xf32>, tensor<3x4xf32>, tensor<3xi16>, tensor<3xi32>,
    tensor<2x3xi16>, tensor<2xi16>) -> tensor<1x2x16x16xf32>
  %b = "pattern.conv2d"(%a, %depthwise) {activation = "none", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
    : (tensor<1x2x16x16xf32>, tensor<2x1x3x3xf32>) -> tensor<1x2x8x8xf32>
  %c = "pattern.max_pool2d"(%b) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x4x4xf32>
  %d = "pattern.avg_pool2d"(%c) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 4, 4>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>) -> tensor<1x2x1x1xf32>
  %flat = tensor.collapse_shape %d [[0], [1, 2, 3]] : tensor<1x2x1x1xf32> into tensor<1x2xf32>
  %y = "pattern.linear"(%flat, %classes) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x2xf32>, tensor<3x2xf32>) -> tensor<1x3xf32>
  return %y : tensor<1x3xf32>
}
