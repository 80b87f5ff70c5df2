// RUN: not patc-opt --pattern-layout=target=x86-64-v9 %s 2>&1 | filecheck %s --check-prefix=TARGET
// RUN: not patc-opt --pattern-layout=lanes=8 %s 2>&1 | filecheck %s --check-prefix=OPTION

// TARGET: expected a target of host, {{.*}}x86-64-v4{{.*}}, got 'x86-64-v9'
// OPTION: pass 'pattern-layout' has no option 'lanes'
func.func private @nothing()
