// RUN: not patc-opt --pattern-vectorize=target=x86-64-v9 %s 2>&1 | filecheck %s

// CHECK: expected a target of host, {{.*}}x86-64-v4{{.*}}, got 'x86-64-v9'
func.func private @nothing()
