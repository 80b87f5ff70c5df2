// RUN: not patc-opt --pattern-parallelize=threads=2 %s 2>&1 | filecheck %s

// CHECK: pass 'pattern-parallelize' has no option 'threads'
func.func private @nothing()
