// RUN: patc compile %s --threads 1 -o %t.patc | filecheck %s --check-prefix=SUMMARY
// RUN: patc report %t.patc | filecheck %s --check-prefix=REPORT
// RUN: patc run %t.patc | filecheck %s --check-prefix=SCORES
// RUN: patc compile %s --quiet -o %t.patc | filecheck %s --check-prefix=QUIET --allow-empty
// RUN: patc compile %s --emit mlir@encode -o %t.mlir && filecheck %s --check-prefix=ENCODE < %t.mlir

// SUMMARY: compile.mlir.tmp.patc: 2 layers (0 with dense weights), 8 of 18 weights, {{.*}} kB; target host, 1 thread

// REPORT: input 'arg0' of shape [1, 2, 4, 4] float32
// REPORT: output 'result0' of shape [1, 1, 4, 4] float32
// REPORT: conv 3x3
// REPORT-NEXT: pattern-direct

// SCORES: output [1, 1, 4, 4]: from {{.*}} to {{.*}}, mean

// QUIET-NOT: {{.}}

// ENCODE: pattern.sparse_conv2d

func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %w = arith.constant dense<[[[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]],
                              [[0.0, 0.0, 0.0], [0.0, 5.0, 6.0], [0.0, 7.0, 8.0]]]]> : tensor<1x2x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x3x3xf32>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}
