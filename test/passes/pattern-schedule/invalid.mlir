// RUN: not patc-opt --pattern-schedule=target=x86-64-v9 %s 2>&1 | filecheck %s --check-prefix=TARGET
// RUN: not patc-opt --pattern-schedule=threads=0 %s 2>&1 | filecheck %s --check-prefix=THREADS
// RUN: not patc-opt --pattern-schedule=threads=2147483648 %s 2>&1 | filecheck %s --check-prefix=MOST
// RUN: not patc-opt --pattern-schedule=threads=many %s 2>&1 | filecheck %s --check-prefix=NUMBER

// TARGET: expected a target of host, {{.*}}x86-64-v4{{.*}}, got 'x86-64-v9'
// THREADS: pass 'pattern-schedule' expected option 'threads' to be an integer from 1 to 1024, got
// MOST: an integer from 1 to 1024, got 2147483648
// NUMBER: pass 'pattern-schedule' expected option 'threads' to be an integer from 1 to 1024, got 'many'
func.func private @nothing()
