// RUN: patc-opt --pattern-to-spirv %s > %t.once
// RUN: patc-opt --pattern-to-spirv --pattern-to-spirv %s > %t.twice
// RUN: diff %t.once %t.twice
module attributes {gpu.container_module} {
  func.func @main(%arena: memref<1024xi8>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c256 = arith.constant 256 : index
    %0 = memref.view %arena[%c0][%c256] : memref<1024xi8> to memref<?xf32>
    gpu.launch_func @k::@k blocks in (%c1, %c1, %c1) threads in (%c256, %c1, %c1) args(%0 : memref<?xf32>)
    return
  }
  gpu.module @k {
    gpu.func @k(%x: memref<?xf32>) kernel attributes {known_block_size = array<i32: 64, 1, 1>} {
      %thread = gpu.thread_id x
      %zero = arith.constant 0.0 : f32
      memref.store %zero, %x[%thread] : memref<?xf32>
      gpu.return
    }
  }
}
