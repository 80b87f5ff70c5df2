// On an AArch64 machine "host" takes the same way as the targets for phones and boards, and runs what comes out.
// REQUIRES: aarch64-host
// RUN: patc-opt --pattern-vectorize=target=host %S/../../../passes/pattern-vectorize/neon.mlir | filecheck %s --check-prefix=VECTORS
// RUN: patc compile %S/pattern-loops.mlir --threads 2 --quiet -o %t.patc
// RUN: patc run %t.patc --profile | filecheck %s

// VECTORS: vector.load {{.*}} vector<4xf32>
// VECTORS: arith.maximumf
// CHECK: sparse
