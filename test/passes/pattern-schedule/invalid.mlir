// RUN: not patc-opt --pattern-schedule=target=x86-64-v9 %s 2>&1 | filecheck %s --check-prefix=TARGET
// RUN: not patc-opt --pattern-schedule=threads=0 %s 2>&1 | filecheck %s --check-prefix=THREADS
// RUN: not patc-opt --pattern-schedule=threads=many %s 2>&1 | filecheck %s --check-prefix=NUMBER

// TARGET: expected a target of host, {{.*}}x86-64-v4{{.*}}, got 'x86-64-v9'
// THREADS: pass 'pattern-schedule' expected option 'threads' to be an integer of 1 or more, got
// NUMBER: pass 'pattern-schedule' expected option 'threads' to be an integer of 1 or more, got 'many'
func.func private @nothing()
