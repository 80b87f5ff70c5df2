// A pruned convolution becomes multiply-adds on registers of four floats, in a function that only the library calls.
// RUN: patc compile %s --target aarch64-linux --emit asm --quiet -o %t.s && filecheck %s --check-prefix=ASM < %t.s
// RUN: patc compile %s --target aarch64-linux --emit llvm --quiet -o %t.ll && filecheck %s --check-prefix=LLVM < %t.ll

// ASM-NOT: .globl {{main|pattern}}
// ASM: fmla v{{[0-9]+}}.4s, v{{[0-9]+}}.4s
// ASM: .globl pattern_conv_run

// LLVM: define internal {{.*}}void @main(
// LLVM: call <4 x float> @llvm.fma.v4f32(

func.func @main(%x: tensor<1x2x16x16xf32>) -> tensor<1x1x16x16xf32> {
  %w = arith.constant dense<[[[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]],
                              [[0.0, 0.0, 0.0], [0.0, 5.0, 6.0], [0.0, 7.0, 8.0]]]]> : tensor<1x2x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x16x16xf32>, tensor<1x2x3x3xf32>) -> tensor<1x1x16x16xf32>
  return %y : tensor<1x1x16x16xf32>
}
