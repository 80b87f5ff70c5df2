// RUN: patc-opt --pattern-vectorize=target=x86-64-v4 %s > %t.once
// RUN: patc-opt --pattern-vectorize=target=x86-64-v4 %t.once | diff %t.once -
// RUN: patc-opt --pattern-vectorize=target=aarch64-linux %S/neon.mlir > %t.neon
// RUN: patc-opt --pattern-vectorize=target=aarch64-linux %t.neon | diff %t.neon -

func.func @shifted_once(%x: memref<1024xf32>, %y: memref<16xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %step = arith.constant 16 : index
  %end = arith.constant 512 : index
  scf.for %base = %zero to %end step %step {
    %behind = arith.addi %base, %one : index
    %a = vector.load %x[%behind] : memref<1024xf32>, vector<16xf32>
    vector.store %a, %y[%zero] : memref<16xf32>, vector<16xf32>
  }
  return
}
