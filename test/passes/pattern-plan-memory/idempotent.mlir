// RUN: patc-opt --pattern-plan-memory %s > %t.once
// RUN: patc-opt --pattern-plan-memory %t.once | diff %t.once -

memref.global "private" constant @ones : memref<16xf32> = dense<1.0>

func.func @planned_once(%x: memref<16xf32>, %y: memref<16xf32>) {
  %ones = memref.get_global @ones : memref<16xf32>
  %a = memref.alloc() : memref<16xf32>
  memref.copy %ones, %a : memref<16xf32> to memref<16xf32>
  memref.copy %a, %y : memref<16xf32> to memref<16xf32>
  return
}
