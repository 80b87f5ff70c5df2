// RUN: patc-opt --pattern-to-spirv --split-input-file --verify-diagnostics %s

module attributes {gpu.container_module} {
  // expected-error @+1 {{'gpu.module' op expected a kernel that is launched, got @k, which is not}}
  gpu.module @k {
    gpu.func @k(%x: memref<?xf32>) kernel attributes {known_block_size = array<i32: 64, 1, 1>} {
      gpu.return
    }
  }
}

// -----

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
    // expected-error @+1 {{'gpu.func' op expected the attribute 'known_block_size', got none}}
    gpu.func @k(%x: memref<?xf32>) kernel {
      gpu.return
    }
  }
}

// -----

module attributes {gpu.container_module} {
  func.func @main(%arena: memref<1024xi8>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c256 = arith.constant 256 : index
    %0 = memref.view %arena[%c0][%c256] : memref<1024xi8> to memref<?xf32>
    gpu.launch_func @k::@k blocks in (%c1, %c1, %c1) threads in (%c256, %c1, %c1) args(%0 : memref<?xf32>)
    return
  }
  // expected-error @+1 {{'gpu.module' op expected one gpu.func, got 2}}
  gpu.module @k {
    gpu.func @k(%x: memref<?xf32>) kernel attributes {known_block_size = array<i32: 64, 1, 1>} {
      gpu.return
    }
    gpu.func @l() kernel attributes {known_block_size = array<i32: 64, 1, 1>} {
      gpu.return
    }
  }
}

// -----

module attributes {gpu.container_module} {
  func.func @main(%arena: memref<4x4xf32>) {
    %c1 = arith.constant 1 : index
    gpu.launch_func @k::@k blocks in (%c1, %c1, %c1) threads in (%c1, %c1, %c1) args(%arena : memref<4x4xf32>)
    return
  }
  gpu.module @k {
    // expected-error @+1 {{'gpu.func' op expected arguments that are one-dimensional memrefs and indices, got memref<4x4xf32>}}
    gpu.func @k(%x: memref<4x4xf32>) kernel attributes {known_block_size = array<i32: 1, 1, 1>} {
      gpu.return
    }
  }
}

// -----

module attributes {gpu.container_module} {
  func.func @main() {
    %c1 = arith.constant 1 : index
    %0 = memref.alloc() : memref<4xf32>
    // expected-error @+1 {{'gpu.launch_func' op expected buffers that are arguments of the function, or views of them, got memref.alloc}}
    gpu.launch_func @k::@k blocks in (%c1, %c1, %c1) threads in (%c1, %c1, %c1) args(%0 : memref<4xf32>)
    return
  }
  gpu.module @k {
    gpu.func @k(%x: memref<4xf32>) kernel attributes {known_block_size = array<i32: 1, 1, 1>} {
      gpu.return
    }
  }
}

// -----

module attributes {gpu.container_module} {
  func.func @main(%a: memref<4xf32>, %b: memref<4xf32>) {
    %c1 = arith.constant 1 : index
    gpu.launch_func @k::@k blocks in (%c1, %c1, %c1) threads in (%c1, %c1, %c1) args(%a : memref<4xf32>)
    // expected-error @+1 {{'gpu.launch_func' op expected the buffers [0] of the first launch of this kernel, got [1]}}
    gpu.launch_func @k::@k blocks in (%c1, %c1, %c1) threads in (%c1, %c1, %c1) args(%b : memref<4xf32>)
    return
  }
  gpu.module @k {
    gpu.func @k(%x: memref<4xf32>) kernel attributes {known_block_size = array<i32: 1, 1, 1>} {
      gpu.return
    }
  }
}

// -----

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
    // expected-error @+1 {{'gpu.func' op expected no workgroup attributions, got 1}}
    gpu.func @k(%x: memref<?xf32>) workgroup(%shared: memref<4xf32, #gpu.address_space<workgroup>>) kernel
        attributes {known_block_size = array<i32: 64, 1, 1>} {
      gpu.return
    }
  }
}

// -----

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
      // expected-error @+1 {{failed to legalize operation 'memref.dealloc'}}
      memref.dealloc %x : memref<?xf32>
      gpu.return
    }
  }
}
