// RUN: not patc-opt --split-input-file --verify-diagnostics %s 2>&1 | filecheck %s

// One line for each diagnostic that was not expected and each expectation that was not met.

func.func @unexpected() -> i32 {
  // CHECK: {{.*}}failures.mlir:[[# @LINE + 1]]:10: error: unexpected error: use of undeclared SSA value name
  return %0 : i32
}

// -----

// CHECK: {{.*}}failures.mlir:[[# @LINE + 1]]: error: expected error "no such thing" was not produced
// expected-error @below {{no such thing}}
func.func private @not_produced()

// -----

func.func @wrong_severity() -> i32 {
  // CHECK: {{.*}}failures.mlir:[[# @LINE + 3]]:10: error: unexpected error: use of undeclared
  // CHECK: {{.*}}failures.mlir:[[# @LINE + 1]]: error: expected warning "use of undeclared" was not produced
  // expected-warning @below {{use of undeclared}}
  return %0 : i32
}

// -----

// CHECK: {{.*}}failures.mlir:[[# @LINE + 1]]: error: expected error "use of undeclared" was not produced
// expected-error @below {{use of undeclared}}
func.func @wrong_line() -> i32 {
  // CHECK-NOT: error
  return %0 : i32
}
