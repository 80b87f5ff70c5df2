// RUN: patc-opt --pattern-to-spirv="workgroup-threads=256 workgroup-bytes=32768" %s | filecheck %s
// RUN: not patc-opt --pattern-to-spirv=workgroup-bytes=32768 %s 2>&1 | filecheck %s --check-prefix=THREADS
// RUN: not patc-opt --pattern-to-spirv=workgroup-threads=256 %s 2>&1 | filecheck %s --check-prefix=BYTES
// RUN: not patc-opt --pattern-to-spirv=push-bytes=64 %s 2>&1 | filecheck %s --check-prefix=RANGE

// CHECK:   spirv.ExecutionMode @k "LocalSize", 256, 1, 1
// THREADS: options.mlir:20:5: error: 'gpu.func' op expected at most 128 threads of a workgroup, got 256
// BYTES:   options.mlir:20:5: error: 'gpu.func' op expected at most 16384 bytes of workgroup memory, got 20480
// RANGE:   pass 'pattern-to-spirv' expected option 'push-bytes' to be an integer of 128 or more, got 64
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
    gpu.func @k(%x: memref<?xf32>) kernel attributes {known_block_size = array<i32: 256, 1, 1>} {
      %thread = gpu.thread_id x
      %shared = memref.alloc() : memref<5120xf32, #gpu.address_space<workgroup>>
      %value = memref.load %x[%thread] : memref<?xf32>
      memref.store %value, %shared[%thread] : memref<5120xf32, #gpu.address_space<workgroup>>
      gpu.return
    }
  }
}
