// RUN: not patc-opt --split-input-file %s 2>&1 | filecheck %s
// RUN: not patc-opt --split-input-file < %s 2>&1 | filecheck %s --check-prefix=STDIN

// Every part is processed, and errors name the line of the file. Nothing is printed when one fails.

// CHECK-NOT: module

// -----

func.func @undefined_value() -> i32 {
  // CHECK: {{.*}}split-input-file-errors.mlir:[[# @LINE + 2]]:10: error: use of undeclared SSA value name
  // STDIN: <stdin>:[[# @LINE + 1]]:10: error: use of undeclared SSA value name
  return %0 : i32
}

// -----

func.func @fine() {
  return
}

// -----

func.func @wrong_type(%x: f32) -> i32 {
  // CHECK: {{.*}}split-input-file-errors.mlir:[[# @LINE + 1]]:3: error: type of return operand 0 ('f32') doesn't match
  return %x : f32
}
