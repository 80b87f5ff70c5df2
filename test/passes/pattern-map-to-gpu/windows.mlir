// RUN: patc-opt --pattern-schedule=target=spirv-vulkan --pattern-map-to-gpu=window-bytes=20480 %s | filecheck %s

// The second layer sees the weights from its own on, and finds a constant residual behind them.
// CHECK: pattern.windows = array<i64: 0, 20480, 16384,
// CHECK: memref.view %arg1[%c0]
// CHECK: gpu.launch_func @gemm_0::@gemm_0
// CHECK: %[[SEEN:.*]] = memref.view %arg1[%c16384]
// CHECK: gpu.launch_func @gemm_1::@gemm_1 {{.*}} args(%[[SEEN]] : memref<?xf32>, %c0 : index, {{.*}}, %c4096 : index)
func.func @main(%x: tensor<12x64xf32>) -> tensor<12x64xf32> {
  %first = arith.constant dense<0.5> : tensor<64x64xf32>
  %second = arith.constant dense<0.25> : tensor<64x64xf32>
  %added = arith.constant dense<2.0> : tensor<12x64xf32>
  %0 = "pattern.linear"(%x, %first) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>} : (tensor<12x64xf32>, tensor<64x64xf32>) -> tensor<12x64xf32>
  %1 = "pattern.linear"(%0, %second, %added) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 1>} : (tensor<12x64xf32>, tensor<64x64xf32>, tensor<12x64xf32>) -> tensor<12x64xf32>
  return %1 : tensor<12x64xf32>
}
