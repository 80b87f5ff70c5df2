// RUN: not patc-opt --pattern-plan-memory %s 2>&1 | filecheck %s
// RUN: not patc-opt --pattern-plan-memory=alignment=32 %s 2>&1 | filecheck %s --check-prefix=OPTION

// OPTION: pass 'pattern-plan-memory' has no option 'alignment'
// CHECK: parameter 'missing' is not in the store
memref.global "private" @missing : memref<16xf32>

func.func @weights_without_an_array(%y: memref<16xf32>) {
  %w = memref.get_global @missing : memref<16xf32>
  memref.copy %w, %y : memref<16xf32> to memref<16xf32>
  return
}
