// RUN: mkdir -p %t.dir
// RUN: patc compile %s --target aarch64-linux --emit obj -o %t.dir/net.o | filecheck %s --check-prefix=SUMMARY
// RUN: patc compile %s --target aarch64-linux --emit asm -o %t.s --quiet && filecheck %s --check-prefix=ASM < %t.s
// RUN: patc compile %s --target aarch64-android --threads 2 --emit llvm -o %t.ll --quiet
// RUN: filecheck %s --check-prefix=LLVM < %t.ll
// RUN: filecheck %s --check-prefix=HEADER < %t.dir/library.h

// SUMMARY: net.o, {{.*}}library.h: 2 layers (0 with dense weights), 8 of 18 weights, {{.*}} kB; target aarch64-linux, cortex-a76, 1 thread, workspace {{[0-9]+}} B

// ASM-NOT: .globl main
// ASM: .globl library_run
// ASM: .globl library_set_weights

// LLVM: target triple = "aarch64-unknown-linux-android29"
// LLVM: define internal {{.*}}void @main
// LLVM: define {{.*}}i32 @library_run(ptr
// LLVM: define {{.*}}i32 @library_set_weights(ptr

// HEADER: #define LIBRARY_THREADS 1
// HEADER: #define LIBRARY_INPUT0_SHAPE {1, 2, 4, 4}
// HEADER: #define LIBRARY_OUTPUT0_SHAPE {1, 1, 4, 4}
// HEADER: int library_run(const float *input0, float *output0, void *workspace);

func.func @main(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x4x4xf32> {
  %w = arith.constant dense<[[[[1.0, 2.0, 0.0], [3.0, 4.0, 0.0], [0.0, 0.0, 0.0]],
                              [[0.0, 0.0, 0.0], [0.0, 5.0, 6.0], [0.0, 7.0, 8.0]]]]> : tensor<1x2x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x3x3xf32>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}
