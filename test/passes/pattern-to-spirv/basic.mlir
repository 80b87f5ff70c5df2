// RUN: patc-opt --pattern-to-spirv --split-input-file %s | filecheck %s

// Views of one buffer are one binding; what is only read says so, and numbers are push constants.

// CHECK-LABEL: spirv.module @__spv__scale Logical GLSL450 requires #spirv.vce<v1.0, [Shader{{.*}}], [SPV_KHR_storage_buffer_storage_class]>
// CHECK-DAG:     spirv.GlobalVariable @scale_arg_0 bind(0, 0) : !spirv.ptr<!spirv.struct<(!spirv.rtarray<vector<4xf32>, stride=16> [0])>, StorageBuffer>
// CHECK-DAG:     spirv.GlobalVariable @scale_arg_1 bind(0, 1) {non_writable} : !spirv.ptr<!spirv.struct<(!spirv.rtarray<f32, stride=4> [0])>, StorageBuffer>
// CHECK-DAG:     spirv.GlobalVariable @scale_arg_2 bind(0, 1) {non_writable} : !spirv.ptr<!spirv.struct<(!spirv.rtarray<i32, stride=4> [0])>, StorageBuffer>
// CHECK-DAG:     spirv.GlobalVariable @scale_arg_3 : !spirv.ptr<!spirv.struct<(!spirv.array<2 x i32, stride=4> [0])>, PushConstant>
// CHECK:         spirv.func @scale()
// CHECK:           spirv.Load "PushConstant"
// CHECK:           spirv.GL.Fma
// CHECK:           spirv.Store "StorageBuffer" {{.*}} : vector<4xf32>
// CHECK:         spirv.EntryPoint "GLCompute" @scale
// CHECK:         spirv.ExecutionMode @scale "LocalSize", 64, 1, 1
// CHECK:       gpu.module @scale
module attributes {gpu.container_module} {
  func.func @main(%arena: memref<1024xi8>, %weights: memref<64xi8>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c16 = arith.constant 16 : index
    %c64 = arith.constant 64 : index
    %0 = memref.view %arena[%c0][%c64] : memref<1024xi8> to memref<?xvector<4xf32>>
    %1 = memref.view %weights[%c0][%c16] : memref<64xi8> to memref<?xf32>
    %2 = memref.view %weights[%c0][%c16] : memref<64xi8> to memref<?xi32>
    gpu.launch_func @scale::@scale blocks in (%c1, %c1, %c1) threads in (%c64, %c1, %c1)
      args(%0 : memref<?xvector<4xf32>>, %1 : memref<?xf32>, %2 : memref<?xi32>, %c0 : index, %c16 : index)
    return
  }
  gpu.module @scale {
    gpu.func @scale(%x: memref<?xvector<4xf32>>, %w: memref<?xf32>, %i: memref<?xi32>, %first: index, %second: index)
        kernel attributes {known_block_size = array<i32: 64, 1, 1>} {
      %thread = gpu.thread_id x
      %place = memref.load %i[%first] : memref<?xi32>
      %at = arith.index_cast %place : i32 to index
      %scalar = memref.load %w[%at] : memref<?xf32>
      %factor = vector.broadcast %scalar : f32 to vector<4xf32>
      %from = arith.addi %thread, %second : index
      %value = memref.load %x[%from] : memref<?xvector<4xf32>>
      %made = math.fma %value, %factor, %value : vector<4xf32>
      memref.store %made, %x[%thread] : memref<?xvector<4xf32>>
      gpu.return
    }
  }
}

// -----

// Half precision asks for both capabilities. A buffer that is written and seen as several types is aliased, and threads
// share memory of the workgroup.

// CHECK-LABEL: spirv.module @__spv__half
// CHECK-SAME:    requires #spirv.vce<v{{.*}}, [{{.*}}Float16{{.*}}], [{{.*}}SPV_KHR_16bit_storage{{.*}}]>
// CHECK-DAG:     spirv.GlobalVariable {{.*}} : !spirv.ptr<!spirv.struct<(!spirv.array<4 x f16>)>, Workgroup>
// CHECK-DAG:     spirv.GlobalVariable @half_arg_0 bind(0, 0) {aliased} : !spirv.ptr<!spirv.struct<(!spirv.rtarray<vector<4xf16>, stride=8> [0])>, StorageBuffer>
// CHECK-DAG:     spirv.GlobalVariable @half_arg_1 bind(0, 0) {aliased} : !spirv.ptr<!spirv.struct<(!spirv.rtarray<f16, stride=2> [0])>, StorageBuffer>
// CHECK:         spirv.ControlBarrier <Workgroup>
module attributes {gpu.container_module} {
  func.func @main(%arena: memref<1024xi8>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c4 = arith.constant 4 : index
    %0 = memref.view %arena[%c0][%c4] : memref<1024xi8> to memref<?xvector<4xf16>>
    %1 = memref.view %arena[%c0][%c4] : memref<1024xi8> to memref<?xf16>
    gpu.launch_func @half::@half blocks in (%c1, %c1, %c1) threads in (%c4, %c1, %c1)
      args(%0 : memref<?xvector<4xf16>>, %1 : memref<?xf16>)
    return
  }
  gpu.module @half {
    gpu.func @half(%x: memref<?xvector<4xf16>>, %y: memref<?xf16>)
        kernel attributes {known_block_size = array<i32: 4, 1, 1>} {
      %c0 = arith.constant 0 : index
      %thread = gpu.thread_id x
      %shared = memref.alloc() : memref<4xf16, #gpu.address_space<workgroup>>
      %vector = memref.load %x[%thread] : memref<?xvector<4xf16>>
      %scalar = vector.extract %vector[1] : f16 from vector<4xf16>
      memref.store %scalar, %shared[%thread] : memref<4xf16, #gpu.address_space<workgroup>>
      gpu.barrier
      %first = memref.load %shared[%c0] : memref<4xf16, #gpu.address_space<workgroup>>
      memref.store %first, %y[%thread] : memref<?xf16>
      gpu.return
    }
  }
}

// -----

// Elements of 64 bits ask for their capabilities; truth values are bytes of whole words, as on the host.

// CHECK-LABEL: spirv.module @__spv__wide
// CHECK-SAME:    requires #spirv.vce<v{{.*}}, [{{.*}}Float64{{.*}}], [SPV_KHR_storage_buffer_storage_class]>
// CHECK-DAG:     spirv.GlobalVariable @wide_arg_0 bind(0, 0) {aliased} : !spirv.ptr<!spirv.struct<(!spirv.rtarray<i64, stride=8> [0])>, StorageBuffer>
// CHECK-DAG:     spirv.GlobalVariable @wide_arg_1 bind(0, 0) {aliased} : !spirv.ptr<!spirv.struct<(!spirv.rtarray<i32, stride=4> [0])>, StorageBuffer>
// CHECK:         spirv.AtomicOr
module attributes {gpu.container_module} {
  func.func @main(%arena: memref<1024xi8>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c4 = arith.constant 4 : index
    %0 = memref.view %arena[%c0][%c4] : memref<1024xi8> to memref<?xi64>
    %1 = memref.view %arena[%c0][%c4] : memref<1024xi8> to memref<?xi1>
    gpu.launch_func @wide::@wide blocks in (%c1, %c1, %c1) threads in (%c4, %c1, %c1)
      args(%0 : memref<?xi64>, %1 : memref<?xi1>)
    return
  }
  gpu.module @wide {
    gpu.func @wide(%x: memref<?xi64>, %y: memref<?xi1>) kernel attributes {known_block_size = array<i32: 4, 1, 1>} {
      %thread = gpu.thread_id x
      %number = memref.load %x[%thread] : memref<?xi64>
      %wide = arith.sitofp %number : i64 to f64
      %square = arith.mulf %wide, %wide : f64
      %above = arith.cmpf ogt, %square, %wide : f64
      memref.store %above, %y[%thread] : memref<?xi1>
      gpu.return
    }
  }
}

// -----

// Dot products of words ask for two capabilities and an extension, which MLIR does not find out.

// CHECK-LABEL: spirv.module @__spv__dot
// CHECK-SAME:    requires #spirv.vce<v1.0, [{{.*}}Shader, DotProduct, DotProductInput4x8BitPacked], [{{.*}}SPV_KHR_integer_dot_product]>
// CHECK:         spirv.SDot %{{.*}}, %{{.*}}, <PackedVectorFormat4x8Bit> : i32 -> i32
// CHECK-NOT:     spirv.BitFieldUExtract
module attributes {gpu.container_module} {
  func.func @main(%arena: memref<1024xi8>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c256 = arith.constant 256 : index
    %0 = memref.view %arena[%c0][%c256] : memref<1024xi8> to memref<?xi32>
    gpu.launch_func @dot::@dot blocks in (%c1, %c1, %c1) threads in (%c1, %c1, %c1) args(%0 : memref<?xi32>)
    return
  }
  gpu.module @dot {
    gpu.func @dot(%x: memref<?xi32>) kernel attributes {known_block_size = array<i32: 1, 1, 1>} {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %a = memref.load %x[%c0] : memref<?xi32>
      %b = memref.load %x[%c1] : memref<?xi32>
      %made = spirv.SDot %a, %b, <PackedVectorFormat4x8Bit> : i32 -> i32
      memref.store %made, %x[%c0] : memref<?xi32>
      gpu.return
    }
  }
}
