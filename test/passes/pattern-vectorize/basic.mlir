// RUN: patc-opt --pattern-vectorize=target=x86-64-v4 %s | filecheck %s

// A vector one element behind an aligned one is put together from two aligned ones, each loaded once. One that is two
// elements behind is loaded as before.

// CHECK-LABEL: func.func @shifts_aligned_neighbours
// CHECK-SAME:    %[[X:.*]]: memref<1024xf32>
// CHECK-DAG:     %[[NEXT:.*]] = arith.constant 16 : index
// CHECK-DAG:     %[[TWO:.*]] = arith.constant 2 : index
// CHECK:         scf.for %[[BASE:.*]] =
// CHECK:           %[[LOW:.*]] = vector.load %[[X]][%[[BASE]]]
// CHECK:           %[[PLACE:.*]] = arith.addi %[[BASE]], %[[NEXT]]
// CHECK:           %[[HIGH:.*]] = vector.load %[[X]][%[[PLACE]]]
// CHECK:           %[[SHIFTED:.*]] = vector.shuffle %[[LOW]], %[[HIGH]] [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
// CHECK:           %[[FAR:.*]] = arith.addi %[[BASE]], %[[TWO]]
// CHECK:           %[[UNALIGNED:.*]] = vector.load %[[X]][%[[FAR]]]
// CHECK:           math.fma %[[LOW]], %[[SHIFTED]], %[[UNALIGNED]]
func.func @shifts_aligned_neighbours(%x: memref<1024xf32>, %y: memref<16xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %step = arith.constant 16 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %a = vector.load %x[%base] : memref<1024xf32>, vector<16xf32>
    %behind = arith.addi %base, %one : index
    %b = vector.load %x[%behind] : memref<1024xf32>, vector<16xf32>
    %far = arith.addi %base, %two : index
    %c = vector.load %x[%far] : memref<1024xf32>, vector<16xf32>
    %sum = math.fma %a, %b, %c : vector<16xf32>
    vector.store %sum, %y[%zero] : memref<16xf32>, vector<16xf32>
  }
  return
}

// A narrow vector next to a shifted one comes out of the same aligned vector.

// CHECK-LABEL: func.func @picks_narrow_vectors_from_wide_ones
// CHECK-SAME:    %[[X:.*]]: memref<1024xf32>
// CHECK:         scf.for %[[BASE:.*]] =
// CHECK-NOT:       vector.load {{.*}}, vector<4xf32>
// CHECK:           %[[WIDE:.*]] = vector.shuffle %{{.*}}, %[[HIGH:.*]] [1, 2,
// CHECK:           %[[NARROW:.*]] = vector.shuffle %[[HIGH]], %[[HIGH]] [1, 2, 3, 4]
// CHECK:           vector.store %[[WIDE]]
// CHECK:           vector.store %[[NARROW]]
func.func @picks_narrow_vectors_from_wide_ones(%x: memref<1024xf32>, %y: memref<16xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %next = arith.constant 17 : index
  %step = arith.constant 16 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %behind = arith.addi %base, %one : index
    %wide = vector.load %x[%behind] : memref<1024xf32>, vector<16xf32>
    %end_of_row = arith.addi %base, %next : index
    %narrow = vector.load %x[%end_of_row] : memref<1024xf32>, vector<4xf32>
    vector.store %wide, %y[%zero] : memref<16xf32>, vector<16xf32>
    vector.store %narrow, %y[%zero] : memref<16xf32>, vector<4xf32>
  }
  return
}

// CHECK-LABEL: func.func @leaves_narrow_vectors_alone
// CHECK-NOT:     vector.shuffle
// CHECK:         return
func.func @leaves_narrow_vectors_alone(%x: memref<1024xf32>, %y: memref<16xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %step = arith.constant 16 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %behind = arith.addi %base, %one : index
    %narrow = vector.load %x[%behind] : memref<1024xf32>, vector<8xf32>
    vector.store %narrow, %y[%zero] : memref<16xf32>, vector<8xf32>
  }
  return
}

// Vectors of another memory, or at another base, are no neighbours.

// CHECK-LABEL: func.func @tells_memories_and_bases_apart
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<1024xf32>, %[[Z:[a-z0-9]+]]: memref<1024xf32>
// CHECK:         scf.for
// CHECK:           %[[FROM_X:.*]] = vector.load %[[X]]
// CHECK:           %[[LOW:.*]] = vector.load %[[Z]]
// CHECK:           %[[HIGH:.*]] = vector.load %[[Z]]
// CHECK:           vector.shuffle %[[LOW]], %[[HIGH]]
// CHECK-NOT:       vector.shuffle
// CHECK:         return
func.func @tells_memories_and_bases_apart(%x: memref<1024xf32>, %z: memref<1024xf32>, %y: memref<16xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %step = arith.constant 16 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %a = vector.load %x[%base] : memref<1024xf32>, vector<16xf32>
    %behind = arith.addi %base, %one : index
    %b = vector.load %z[%behind] : memref<1024xf32>, vector<16xf32>
    %other_base = arith.muli %behind, %step : index
    %c = vector.load %x[%other_base] : memref<1024xf32>, vector<16xf32>
    %sum = math.fma %a, %b, %c : vector<16xf32>
    vector.store %sum, %y[%zero] : memref<16xf32>, vector<16xf32>
  }
  return
}
