// RUN: not patc compile %s -o %t --target aarch64-linux --cpu cortex-a75 2>&1 | filecheck %s --check-prefix=CPU
// RUN: not patc compile %s -o %t --cpu cortex-a76 2>&1 | filecheck %s --check-prefix=CPU-TARGET
// RUN: not patc compile %s -o %t --emit so --target spirv-vulkan 2>&1 | filecheck %s --check-prefix=FORMAT
// RUN: not patc compile %s -o %t.so --target aarch64-linux 2>&1 | filecheck %s --check-prefix=FOLDER
// RUN: not patc compile %s -o %t.s --target aarch64-linux --emit asm --weights embed 2>&1 | filecheck %s --check-prefix=TEXT
// RUN: not patc compile %s -o %t --target aarch64-linux --emit obj 2>&1 | filecheck %s --check-prefix=MAIN

// CPU: patc: error: expected a CPU of cortex-a53, cortex-a55, {{.*}}, apple-m4, got 'cortex-a75'
// CPU-TARGET: patc: error: expected a target of x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android together with a CPU, got 'host'
// FORMAT: patc: error: expected a target of host, x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android together with --emit so, got 'spirv-vulkan'
// FOLDER: patc: error: {{.*}}.so: expected a folder for a library and its header, got the name of a .so file
// TEXT: patc: error: expected --weights file together with --emit asm, which is text, got embed
// MAIN: patc: error: {{.*}}library-errors.mlir: expected a function @main with a body, got none

func.func @other(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}
