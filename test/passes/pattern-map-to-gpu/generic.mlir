// RUN: patc-opt --pattern-layout=target=spirv-vulkan --pattern-schedule=target=spirv-vulkan --pattern-map-to-gpu %s | filecheck %s

// A call of an outlined function is one layer: a kernel for each step, whose threads compute one turn of all parallel
// loops; those of a workgroup share a long sum, which starts from its number. What lies between the steps is in the arena.

// CHECK-LABEL: func.func @main
// CHECK:         gpu.launch_func @generic_0::@generic_0 blocks in (%c3
// CHECK-NOT:       pattern.continues
// CHECK:         gpu.launch_func @generic_1::@generic_1 blocks in (%c4
// CHECK-SAME:      pattern.continues
// CHECK-NOT:     @less_mean

// CHECK-LABEL: gpu.module @generic_0 attributes {pattern.exact}
// CHECK:         %[[THREAD:.*]] = gpu.thread_id x
// CHECK:         %[[SUM:.*]] = scf.for {{.*}} = %[[THREAD]] to %c70 step %c64 iter_args
// CHECK:           arith.addf
// CHECK:         memref.store %[[SUM]], {{.*}}workgroup
// CHECK:         gpu.barrier
// CHECK:         scf.if
// CHECK:           memref.store {{.*}} : memref<?xf32>
// CHECK-LABEL: gpu.module @generic_1 attributes {pattern.exact}
// CHECK:         %[[IN:.*]] = arith.cmpi ult, %{{.*}}, %c210
// CHECK:         scf.if %[[IN]] {
// CHECK-NOT:   less_mean
#same = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (i)>
func.func @main(%x: tensor<3x70xf32>) -> tensor<3x70xf32> {
  %y = func.call @less_mean(%x) {pattern.ops = ["aten.sub.Tensor (net.py:3)"]} : (tensor<3x70xf32>) -> tensor<3x70xf32>
  return %y : tensor<3x70xf32>
}
func.func private @less_mean(%x: tensor<3x70xf32>) -> tensor<3x70xf32> attributes {pattern.outlined} {
  %zero = arith.constant 0.0 : f32
  %row = tensor.empty() : tensor<3xf32>
  %empty = tensor.empty() : tensor<3x70xf32>
  %start = linalg.fill ins(%zero : f32) outs(%row : tensor<3xf32>) -> tensor<3xf32>
  %sum = linalg.generic {indexing_maps = [#same, #row], iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<3x70xf32>) outs(%start : tensor<3xf32>) {
  ^bb0(%a: f32, %o: f32):
    %s = arith.addf %a, %o : f32
    linalg.yield %s : f32
  } -> tensor<3xf32>
  %y = linalg.generic {indexing_maps = [#same, #row, #same], iterator_types = ["parallel", "parallel"]}
      ins(%x, %sum : tensor<3x70xf32>, tensor<3xf32>) outs(%empty : tensor<3x70xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %d = arith.subf %a, %b : f32
    linalg.yield %d : f32
  } -> tensor<3x70xf32>
  return %y : tensor<3x70xf32>
}
