// RUN: patc-opt --pattern-plan-memory %s > %t && patc-opt %s | diff - %t

func.func private @declared(memref<16xf32>)

func.func @needs_no_memory(%x: memref<16xf32>, %y: memref<16xf32>) {
  memref.copy %x, %y : memref<16xf32> to memref<16xf32>
  return
}
