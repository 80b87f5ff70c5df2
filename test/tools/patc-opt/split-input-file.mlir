// RUN: patc-opt --split-input-file --canonicalize %s | filecheck %s
// RUN: patc-opt --split-input-file --canonicalize - < %s | filecheck %s

// Parts may define the same names; the output is split the same way.

// CHECK: func.func @f() -> i32
func.func @f() -> i32 {
  %0 = arith.constant 1 : i32
  return %0 : i32
}

// -----

// CHECK: // -----
// CHECK: func.func @f() -> f32
func.func @f() -> f32 {
  %0 = arith.constant 1.0 : f32
  return %0 : f32
}
