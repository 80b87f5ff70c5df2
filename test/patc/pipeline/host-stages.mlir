// RUN: patc-opt --pattern-raise %s | filecheck %s --check-prefix=RAISE
// RUN: patc-opt --pass-pipeline='builtin.module(pattern-raise,pattern-encode)' %s | filecheck %s --check-prefix=ENCODE
// RUN: patc-opt --pass-pipeline='builtin.module(pattern-raise,pattern-encode,pattern-reorder,pattern-layout,pattern-schedule)' %s | filecheck %s --check-prefix=SCHEDULE
// RUN: patc-opt --pass-pipeline='builtin.module(pattern-raise,pattern-encode,pattern-reorder,pattern-layout,pattern-schedule,convert-pattern-to-linalg)' %s | filecheck %s --check-prefix=LINALG
// RUN: patc-opt --pass-pipeline='builtin.module(pattern-raise,pattern-encode,pattern-reorder,pattern-layout,pattern-schedule,pattern-specialize,pattern-vectorize,pattern-plan-memory)' %s -o /dev/null --mlir-print-ir-after=pattern-specialize 2>&1 | filecheck %s --check-prefix=SPECIALIZE

// One convolution with weights in the text, at each stage of the host pipeline.

// RAISE: "pattern.conv2d"
// RAISE-NOT: linalg
// ENCODE: "pattern.sparse_conv2d"
// ENCODE-SAME: format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54>>
// SCHEDULE: "pattern.sparse_conv2d"
// SCHEDULE-SAME: schedule = #pattern.schedule<{algorithm = "{{[a-z-]+}}"
// LINALG-NOT: pattern.
// LINALG: linalg.conv_2d_nchw_fchw
// SPECIALIZE-NOT: "pattern.
// SPECIALIZE: scf.for
// SPECIALIZE: math.fma

func.func @two_patterns(%x: tensor<1x2x6x6xf32>) -> tensor<1x2x6x6xf32> {
  %w = arith.constant dense<[
    [[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]],
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 5.0, 6.0], [0.0, 7.0, 8.0], [0.0, 0.0, 0.0]]]
  ]> : tensor<2x2x3x3xf32>
  %zero = arith.constant 0.0 : f32
  %padded = tensor.pad %x low[0, 0, 1, 1] high[0, 0, 1, 1] {
  ^bb0(%n: index, %c: index, %h: index, %v: index):
    tensor.yield %zero : f32
  } : tensor<1x2x6x6xf32> to tensor<1x2x8x8xf32>
  %empty = tensor.empty() : tensor<1x2x6x6xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x2x6x6xf32>) -> tensor<1x2x6x6xf32>
  %y = linalg.conv_2d_nchw_fchw {dilations = dense<1> : vector<2xi64>, strides = dense<1> : vector<2xi64>}
    ins(%padded, %w : tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) outs(%init : tensor<1x2x6x6xf32>) -> tensor<1x2x6x6xf32>
  return %y : tensor<1x2x6x6xf32>
}
