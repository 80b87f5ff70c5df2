// RUN: patc-opt --canonicalize --cse %s | filecheck %s
// RUN: patc-opt -canonicalize -cse %s | filecheck %s
// RUN: patc-opt --canonicalize="max-iterations=3 region-simplify=disabled" --cse < %s | filecheck %s
// RUN: patc-opt %s --canonicalize --cse -o %t.mlir
// RUN: filecheck %s --input-file %t.mlir
// RUN: patc-opt %s -o - | filecheck %s --check-prefix=UNCHANGED

// Passes as flags run in the order of the flags; flags may stand before and after the file.

// CHECK-LABEL: @merges_what_canonicalize_left
// UNCHANGED-LABEL: @merges_what_canonicalize_left
func.func @merges_what_canonicalize_left(%x: f32) -> (f32, f32) {
  // CHECK: %[[SUM:.*]] = arith.addf
  // CHECK: return %[[SUM]], %[[SUM]]
  // UNCHANGED-COUNT-3: arith.addf
  %unused = arith.addf %x, %x : f32
  %a = arith.addf %x, %x : f32
  %b = arith.addf %x, %x : f32
  return %a, %b : f32, f32
}
