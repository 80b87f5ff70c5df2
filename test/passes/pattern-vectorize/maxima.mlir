// RUN: patc-opt --pattern-vectorize=target=x86-64-v3 %s | filecheck %s
// RUN: patc-opt --pattern-vectorize=target=x86-64-v3 --pattern-vectorize=target=x86-64-v3 %s | filecheck %s
// RUN: patc-opt --pattern-vectorize=target=aarch64-linux %s | filecheck %s --check-prefix=NEON

// x86 keeps the NaN of one operand only: comparisons of pairs find the others.

// NEON-COUNT-3: arith.maximumf
// CHECK-LABEL: func.func @finds_nan_in_pairs
// CHECK-NOT:     arith.maximumf
// CHECK:         %[[A:.*]] = vector.load
// CHECK:         %[[B:.*]] = vector.load
// CHECK:         %[[C:.*]] = vector.load
// CHECK:         %[[AB:.*]] = arith.cmpf ogt, %[[B]], %[[A]]
// CHECK:         %[[TWO:.*]] = arith.select %[[AB]], %[[B]], %[[A]]
// CHECK:         %[[ABC:.*]] = arith.cmpf ogt, %[[C]], %[[TWO]]
// CHECK:         %[[THREE:.*]] = arith.select %[[ABC]], %[[C]], %[[TWO]]
// CHECK:         %[[NAN:.*]] = arith.cmpf uno, %[[B]], %[[C]]
// CHECK:         %[[ONES:.*]] = arith.constant dense<-1> : vector<8xi32>
// CHECK:         %[[BITS:.*]] = arith.bitcast %[[THREE]] : vector<8xf32> to vector<8xi32>
// CHECK:         arith.select %[[NAN]], %[[ONES]], %[[BITS]] : vector<8xi1>, vector<8xi32>
func.func @finds_nan_in_pairs(%x: memref<1024xf32>, %y: memref<1024xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %step = arith.constant 8 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %i1 = arith.addi %base, %one : index
    %i2 = arith.addi %base, %two : index
    %a = vector.load %x[%base] : memref<1024xf32>, vector<8xf32>
    %b = vector.load %x[%i1] : memref<1024xf32>, vector<8xf32>
    %c = vector.load %x[%i2] : memref<1024xf32>, vector<8xf32>
    %ab = arith.maximumf %a, %b fastmath<nsz> : vector<8xf32>
    %abc = arith.maximumf %ab, %c fastmath<nsz> : vector<8xf32>
    vector.store %abc, %y[%base] : memref<1024xf32>, vector<8xf32>
  }
  return
}

// What several others read is a maximum of its own.

// CHECK-LABEL: func.func @shared
// CHECK-NOT:     arith.maximumf
// CHECK:         arith.cmpf uno
// CHECK:         %[[SHARED:.*]] = arith.bitcast %{{.*}} : vector<8xi32> to vector<8xf32>
// CHECK:         arith.cmpf ogt, %{{.*}}, %[[SHARED]]
// CHECK:         vector.store %[[SHARED]]
func.func @shared(%x: memref<1024xf32>, %y: memref<1024xf32>) {
  %zero = arith.constant 0 : index
  %step = arith.constant 8 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %a = vector.load %x[%base] : memref<1024xf32>, vector<8xf32>
    %b = vector.load %y[%base] : memref<1024xf32>, vector<8xf32>
    %ab = arith.maximumf %a, %b fastmath<nsz> : vector<8xf32>
    %aba = arith.maximumf %ab, %a fastmath<nsz> : vector<8xf32>
    vector.store %ab, %y[%base] : memref<1024xf32>, vector<8xf32>
    vector.store %aba, %x[%base] : memref<1024xf32>, vector<8xf32>
  }
  return
}

// What a loop carries is what keeps its own NaN: no comparison of it stands between one turn and the next.

// CHECK-LABEL: func.func @carried
// CHECK:         scf.for {{.*}} iter_args(%[[MOST:.*]] = %{{.*}})
// CHECK:         %[[A:.*]] = vector.load
// CHECK:         %[[IS_GREATER:.*]] = arith.cmpf ogt, %[[A]], %[[MOST]]
// CHECK:         arith.select %[[IS_GREATER]], %[[A]], %[[MOST]]
// CHECK:         arith.cmpf uno, %[[A]], %[[A]]
func.func @carried(%x: memref<1024xf32>, %y: memref<1024xf32>) {
  %zero = arith.constant 0 : index
  %step = arith.constant 8 : index
  %end = arith.constant 512 : index
  %low = arith.constant dense<0xFF800000> : vector<8xf32>
  %most = scf.for %base = %zero to %end step %step iter_args(%before = %low) -> vector<8xf32> {
    %a = vector.load %x[%base] : memref<1024xf32>, vector<8xf32>
    %after = arith.maximumf %a, %before fastmath<nsz> : vector<8xf32>
    scf.yield %after : vector<8xf32>
  }
  vector.store %most, %y[%zero] : memref<1024xf32>, vector<8xf32>
  return
}
