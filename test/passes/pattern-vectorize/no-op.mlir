// RUN: patc-opt %s > %t
// RUN: patc-opt --pattern-vectorize=target=x86-64-v3 %s | diff %t -

// AVX2 has no shift across a whole register: unaligned loads stay.

func.func @unaligned_loads(%x: memref<1024xf32>, %y: memref<8xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %step = arith.constant 8 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %a = vector.load %x[%base] : memref<1024xf32>, vector<8xf32>
    %behind = arith.addi %base, %one : index
    %b = vector.load %x[%behind] : memref<1024xf32>, vector<8xf32>
    %sum = arith.addf %a, %b : vector<8xf32>
    vector.store %sum, %y[%zero] : memref<8xf32>, vector<8xf32>
  }
  return
}
