// RUN: patc-opt --pattern-specialize %s > %t && patc-opt %s | diff - %t

// Functions without pattern ops stay, those that other functions or pipelines brought along as well.

func.func private @declared(tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>

func.func @loops(%x: memref<8xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %eight = arith.constant 8 : index
  scf.for %i = %zero to %eight step %one {
    %v = memref.load %x[%i] : memref<8xf32>
    memref.store %v, %x[%i] : memref<8xf32>
  }
  return
}
