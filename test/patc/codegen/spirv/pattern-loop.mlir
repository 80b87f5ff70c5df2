// The loop over the kept kernels of a pattern in SPIR-V: an index and four weights that are the same for all threads,
// two aligned vectors for each row of taps, a shuffle for the taps between them, and multiply-adds. No branch.
// RUN: patc-opt --pass-pipeline='builtin.module(pattern-layout{target=spirv-vulkan},pattern-schedule{target=spirv-vulkan},pattern-map-to-gpu,pattern-to-spirv)' %s | filecheck %s

// CHECK-LABEL: spirv.module @__spv__pattern_direct_0
// CHECK:         spirv.func @pattern_direct_0
// CHECK:         spirv.mlir.loop {
// CHECK:           spirv.BranchConditional
// CHECK-NEXT:    ^bb2:
// CHECK:           spirv.Load "StorageBuffer" {{.*}} : i32
// CHECK:           spirv.Load "StorageBuffer" {{.*}} : vector<4xf32>
// CHECK-NOT:       BranchConditional
// CHECK:           %[[FIRST:.*]] = spirv.Load "StorageBuffer" {{.*}} : vector<4xf32>
// CHECK:           %[[SECOND:.*]] = spirv.Load "StorageBuffer" {{.*}} : vector<4xf32>
// CHECK:           spirv.VectorShuffle [3 : i32, 4 : i32, 5 : i32, 6 : i32] %[[FIRST]], %[[SECOND]]
// CHECK:           spirv.GL.Fma
// CHECK-NOT:       BranchConditional
// CHECK:           spirv.Branch ^bb1
// CHECK:         ^bb3:
// CHECK:           spirv.mlir.merge

func.func @main(%x: tensor<1x2x8x8xf32>) -> tensor<1x1x8x8xf32> {
  %values = arith.constant dense<[[1., 2., 3., 4.], [5., 6., 7., 8.]]> : tensor<2x4xf32>
  %index = arith.constant dense<[0, 1]> : tensor<2xi16>
  %offset = arith.constant dense<[0, 2]> : tensor<2xi32>
  %pattern_offsets = arith.constant dense<[[0, 2]]> : tensor<1x2xi16>
  %reorder = arith.constant dense<[0]> : tensor<1xi16>
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>, tensor<2x4xf32>, tensor<2xi16>, tensor<2xi32>,
    tensor<1x2xi16>, tensor<1xi16>) -> tensor<1x1x8x8xf32>
  return %y : tensor<1x1x8x8xf32>
}
