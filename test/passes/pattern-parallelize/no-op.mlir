// RUN: patc-opt --pattern-parallelize %s > %t && patc-opt %s | diff - %t

func.func private @declared(memref<4xf32>)

func.func @sequential(%x: memref<4xf32>, %y: memref<4xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %four = arith.constant 4 : index
  scf.for %i = %zero to %four step %one {
    %v = memref.load %x[%i] : memref<4xf32>
    memref.store %v, %y[%i] : memref<4xf32>
  }
  memref.copy %x, %y : memref<4xf32> to memref<4xf32>
  return
}
