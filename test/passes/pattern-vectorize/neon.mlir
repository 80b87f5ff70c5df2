// RUN: patc-opt --pattern-vectorize=target=aarch64-linux %s | filecheck %s

// The four weights of a kernel are one register, whose elements are multiplied by.

// CHECK-LABEL: func.func @loads_weights_together
// CHECK-SAME:    %[[W:.*]]: memref<64xf32>, %[[X:.*]]: memref<1024xf32>
// CHECK:         scf.for %[[KERNEL:.*]] =
// CHECK-NOT:       memref.load
// CHECK:           %[[FACTORS:.*]] = vector.load %[[W]][%[[KERNEL]]] : memref<64xf32>, vector<4xf32>
// CHECK:           %[[FIRST:.*]] = vector.extract %[[FACTORS]][0]
// CHECK:           %[[LAST:.*]] = vector.extract %[[FACTORS]][3]
// CHECK:           vector.broadcast %[[FIRST]]
// CHECK:           vector.broadcast %[[LAST]]
func.func @loads_weights_together(%w: memref<64xf32>, %x: memref<1024xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %three = arith.constant 3 : index
  %step = arith.constant 4 : index
  %end = arith.constant 64 : index
  scf.for %kernel = %zero to %end step %step {
    %i1 = arith.addi %kernel, %one : index
    %i2 = arith.addi %kernel, %two : index
    %i3 = arith.addi %kernel, %three : index
    %w0 = memref.load %w[%kernel] : memref<64xf32>
    %w1 = memref.load %w[%i1] : memref<64xf32>
    %w2 = memref.load %w[%i2] : memref<64xf32>
    %w3 = memref.load %w[%i3] : memref<64xf32>
    %b0 = vector.broadcast %w0 : f32 to vector<4xf32>
    %b1 = vector.broadcast %w1 : f32 to vector<4xf32>
    %b2 = vector.broadcast %w2 : f32 to vector<4xf32>
    %b3 = vector.broadcast %w3 : f32 to vector<4xf32>
    %s0 = arith.addf %b0, %b1 : vector<4xf32>
    %s1 = arith.addf %b2, %b3 : vector<4xf32>
    vector.store %s0, %x[%zero] : memref<1024xf32>, vector<4xf32>
    vector.store %s1, %x[%step] : memref<1024xf32>, vector<4xf32>
  }
  return
}

// Weights that stand alone, or that are used as they are, stay scalars. So do those on both sides of a store to them.

// CHECK-LABEL: func.func @leaves_other_scalars
// CHECK-NOT:     vector.load
// CHECK:         return
func.func @leaves_other_scalars(%w: memref<64xf32>, %x: memref<1024xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %three = arith.constant 3 : index
  %end = arith.constant 64 : index
  scf.for %kernel = %zero to %end step %one {
    %i1 = arith.addi %kernel, %one : index
    %i2 = arith.addi %kernel, %two : index
    %i3 = arith.addi %kernel, %three : index
    %alone = memref.load %w[%kernel] : memref<64xf32>
    %b0 = vector.broadcast %alone : f32 to vector<4xf32>
    vector.store %b0, %x[%zero] : memref<1024xf32>, vector<4xf32>
    %before = memref.load %w[%i2] : memref<64xf32>
    memref.store %alone, %w[%i3] : memref<64xf32>
    %after = memref.load %w[%i3] : memref<64xf32>
    %b2 = vector.broadcast %before : f32 to vector<4xf32>
    %b3 = vector.broadcast %after : f32 to vector<4xf32>
    %sum = arith.addf %b2, %b3 : vector<4xf32>
    vector.store %sum, %x[%zero] : memref<1024xf32>, vector<4xf32>
  }
  return
}

// Vectors between aligned ones get a base of their own where a load does not reach them: it equals %base + 1, and LLVM
// does not know.

// CHECK-LABEL: func.func @gives_unaligned_vectors_a_base
// CHECK:         %[[NAME:.*]] = llvm.mlir.addressof @patc_zero
// CHECK:         %[[LOADED:.*]] = llvm.load %[[NAME]]
// CHECK:         %[[NOTHING:.*]] = arith.index_cast %[[LOADED]]
// CHECK:         %[[STEP:.*]] = arith.addi %[[NOTHING]], %
// CHECK:         scf.for %[[BASE:.*]] =
// CHECK:           vector.load %{{.*}}[%[[BASE]]]
// CHECK:           %[[OWN:.*]] = arith.addi %[[BASE]], %[[STEP]]
// CHECK:           vector.load %{{.*}}[%[[OWN]]]
// CHECK:           %[[PLACE:.*]] = arith.addi %[[OWN]], %c64
// CHECK:           vector.load %{{.*}}[%[[PLACE]]]
func.func @gives_unaligned_vectors_a_base(%x: memref<1024xf32>, %y: memref<64xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %below = arith.constant 65 : index
  %step = arith.constant 4 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %a = vector.load %x[%base] : memref<1024xf32>, vector<4xf32>
    %i1 = arith.addi %base, %one : index
    %b = vector.load %x[%i1] : memref<1024xf32>, vector<4xf32>
    %i2 = arith.addi %base, %below : index
    %c = vector.load %x[%i2] : memref<1024xf32>, vector<4xf32>
    %sum = math.fma %a, %b, %c : vector<4xf32>
    vector.store %sum, %y[%zero] : memref<64xf32>, vector<4xf32>
  }
  return
}

// CHECK-LABEL: func.func @uses_the_maximum
// CHECK-NOT:     arith.select
// CHECK:         arith.maximumf
// CHECK:         arith.minimumf
func.func @uses_the_maximum(%x: memref<1024xf32>) {
  %zero = arith.constant 0 : index
  %step = arith.constant 4 : index
  %end = arith.constant 512 : index
  %low = arith.constant dense<0.0> : vector<4xf32>
  %high = arith.constant dense<6.0> : vector<4xf32>
  scf.for %base = %zero to %end step %step {
    %a = vector.load %x[%base] : memref<1024xf32>, vector<4xf32>
    %below = arith.cmpf ogt, %low, %a : vector<4xf32>
    %b = arith.select %below, %low, %a : vector<4xi1>, vector<4xf32>
    %above = arith.cmpf olt, %high, %b : vector<4xf32>
    %c = arith.select %above, %high, %b : vector<4xi1>, vector<4xf32>
    vector.store %c, %x[%base] : memref<1024xf32>, vector<4xf32>
  }
  return
}
