// RUN: patc-opt --pattern-plan-memory --split-input-file %s | filecheck %s

// %a and %c do not live together; %b lives with both.

// CHECK-LABEL: func.func @lives_apart_share_memory
// CHECK-SAME:    %[[ARENA:[a-z0-9]+]]: memref<8192xi8>, %[[WEIGHTS:[a-z0-9]+]]: memref<64xi8>)
// CHECK-NOT:     memref.alloc
// CHECK:         %[[START_A:.*]] = arith.constant 0 : index
// CHECK:         memref.view %[[ARENA]][%[[START_A]]][] : memref<8192xi8> to memref<1024xf32>
// CHECK:         %[[START_B:.*]] = arith.constant 4096 : index
// CHECK:         memref.view %[[ARENA]][%[[START_B]]][] : memref<8192xi8> to memref<1024xf32>
// CHECK:         %[[START_C:.*]] = arith.constant 0 : index
// CHECK:         memref.view %[[ARENA]][%[[START_C]]][] : memref<8192xi8> to memref<1024xf32>
// CHECK:         return
func.func @lives_apart_share_memory(%x: memref<1024xf32>, %y: memref<1024xf32>) {
  %a = memref.alloc() : memref<1024xf32>
  call @layer(%x, %a) : (memref<1024xf32>, memref<1024xf32>) -> ()
  %b = memref.alloc() : memref<1024xf32>
  call @layer(%a, %b) : (memref<1024xf32>, memref<1024xf32>) -> ()
  %c = memref.alloc() : memref<1024xf32>
  call @layer(%b, %c) : (memref<1024xf32>, memref<1024xf32>) -> ()
  call @layer(%c, %y) : (memref<1024xf32>, memref<1024xf32>) -> ()
  return
}
func.func private @layer(memref<1024xf32>, memref<1024xf32>)

// -----

// A residual keeps its buffer until it is added.

// CHECK-LABEL: func.func @lives_together_do_not_share
// CHECK-SAME:    %{{[a-z0-9]+}}: memref<12288xi8>, %{{[a-z0-9]+}}: memref<64xi8>)
// CHECK:         arith.constant 0 : index
// CHECK:         arith.constant 4096 : index
// CHECK:         arith.constant 8192 : index
// CHECK:         return
func.func @lives_together_do_not_share(%x: memref<1024xf32>, %y: memref<1024xf32>) {
  %a = memref.alloc() : memref<1024xf32>
  %b = memref.alloc() : memref<1024xf32>
  %c = memref.alloc() : memref<1024xf32>
  call @layer(%x, %a) : (memref<1024xf32>, memref<1024xf32>) -> ()
  call @layer(%a, %b) : (memref<1024xf32>, memref<1024xf32>) -> ()
  call @layer(%b, %c) : (memref<1024xf32>, memref<1024xf32>) -> ()
  call @add(%a, %c, %y) : (memref<1024xf32>, memref<1024xf32>, memref<1024xf32>) -> ()
  return
}
func.func private @layer(memref<1024xf32>, memref<1024xf32>)
func.func private @add(memref<1024xf32>, memref<1024xf32>, memref<1024xf32>)

// -----

// The life of a buffer is that of everything made from it, in the bodies of loops too.

// CHECK-LABEL: func.func @casts_and_loops_count
// CHECK-SAME:    %{{[a-z0-9]+}}: memref<8192xi8>, %{{[a-z0-9]+}}: memref<64xi8>)
func.func @casts_and_loops_count(%x: memref<1024xf32>, %y: memref<1024xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %a = memref.alloc() : memref<1024xf32>
  %b = memref.alloc() : memref<1024xf32>
  %part = memref.reinterpret_cast %a to offset: [0], sizes: [512], strides: [1] : memref<1024xf32> to memref<512xf32>
  memref.copy %x, %b : memref<1024xf32> to memref<1024xf32>
  memref.copy %b, %y : memref<1024xf32> to memref<1024xf32>
  scf.for %i = %zero to %one step %one {
    %v = memref.load %part[%i] : memref<512xf32>
    memref.store %v, %part[%i] : memref<512xf32>
  }
  memref.copy %x, %b : memref<1024xf32> to memref<1024xf32>
  return
}

// -----

// Buffers start on cache lines.

// CHECK-LABEL: func.func @sizes_are_rounded_up
// CHECK-SAME:    %[[ARENA:[a-z0-9]+]]: memref<192xi8>
// CHECK:         memref.view %[[ARENA]]{{.*}} to memref<17xf32>
// CHECK:         arith.constant 128 : index
// CHECK-NEXT:    memref.view %[[ARENA]]{{.*}} to memref<3xf32>
func.func @sizes_are_rounded_up(%y: memref<17xf32>, %z: memref<3xf32>) {
  %a = memref.alloc() : memref<17xf32>
  %b = memref.alloc() : memref<3xf32>
  memref.copy %a, %y : memref<17xf32> to memref<17xf32>
  memref.copy %b, %z : memref<3xf32> to memref<3xf32>
  memref.copy %a, %y : memref<17xf32> to memref<17xf32>
  return
}

// -----

// CHECK-LABEL: func.func @half_precision
// CHECK-SAME:    %[[ARENA:[a-z0-9]+]]: memref<2048xi8>
// CHECK:         memref.view %[[ARENA]]{{.*}} to memref<1024xf16>
func.func @half_precision(%y: memref<1024xf16>) {
  %a = memref.alloc() : memref<1024xf16>
  memref.copy %a, %y : memref<1024xf16> to memref<1024xf16>
  return
}

// -----

// Nobody waits for the thread that takes time stamps: what holds them is for nothing else.

// CHECK-LABEL: func.func @time_stamps_share_nothing
// CHECK-SAME:    %[[ARENA:[a-z0-9]+]]: memref<4160xi8>
// CHECK:         %[[STAMPS:.*]] = arith.constant 4096 : index
// CHECK:         memref.view %[[ARENA]][%[[STAMPS]]][] : memref<4160xi8> to memref<2xi64>
// CHECK:         %[[START:.*]] = arith.constant 0 : index
// CHECK:         memref.view %[[ARENA]][%[[START]]][] : memref<4160xi8> to memref<1024xf32>
func.func @time_stamps_share_nothing(%x: memref<1024xf32>, %y: memref<1024xf32>) {
  %zero = arith.constant 0 : index
  %none = arith.constant 0 : i64
  %stamps = memref.alloc() : memref<2xi64>
  memref.store %none, %stamps[%zero] : memref<2xi64>
  %a = memref.alloc() : memref<1024xf32>
  memref.copy %x, %a : memref<1024xf32> to memref<1024xf32>
  memref.copy %a, %y : memref<1024xf32> to memref<1024xf32>
  return
}
