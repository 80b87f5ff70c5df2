// RUN: not patc compile %s -o %t.patc 2>&1 | filecheck %s --check-prefix=MAIN
// RUN: not patc compile %s -o %t.patc --target x86 2>&1 | filecheck %s --check-prefix=TARGET
// RUN: not patc compile %s -o %t.patc --target spirv-vulkan --threads 2 2>&1 | filecheck %s --check-prefix=THREADS
// RUN: not patc compile %s -o %t.dir --emit spirv 2>&1 | filecheck %s --check-prefix=SPIRV
// RUN: not patc compile %s -o %t.spv --emit spirv --target spirv-vulkan 2>&1 | filecheck %s --check-prefix=MAIN
// RUN: not patc compile %s -o %s --emit spirv --target spirv-vulkan 2>&1 | filecheck %s --check-prefix=FOLDER
// RUN: not patc compile %s -o %s 2>&1 | filecheck %s --check-prefix=ITSELF
// RUN: not patc compile %s -o %t.mlir --emit mlir@nowhere 2>&1 | filecheck %s --check-prefix=STAGE
// RUN: not patc compile %s -o %t.patc --weights w.pth 2>&1 | filecheck %s --check-prefix=WEIGHTS
// RUN: not patc run %s 2>&1 | filecheck %s --check-prefix=MAIN
// RUN: not patc report %t.nothing.patc 2>&1 | filecheck %s --check-prefix=MISSING
// RUN: not patc fly 2>&1 | filecheck %s --check-prefix=COMMAND

// MAIN: patc: error: {{.*}}errors.mlir: expected a function @main with a body, got none
// TARGET: patc: error: expected a target of host, x86-64-v3, x86-64-v4, aarch64-linux, aarch64-android, spirv-vulkan, spirv-vulkan:dotprod, got 'x86'
// THREADS: patc: error: expected no threads together with target 'spirv-vulkan', got 2
// SPIRV: patc: error: expected a target of spirv-vulkan, spirv-vulkan:dotprod together with --emit spirv, got 'host'
// FOLDER: patc: error: {{.*}}errors.mlir: expected a folder
// ITSELF: patc: error: {{.*}}errors.mlir: expected another file than the model's own, got the same
// STAGE: patc: error: expected a stage, one of linalg, promote, fold-batch-norm, raise, {{.*}}, got 'nowhere'
// WEIGHTS: patc: error: {{.*}}errors.mlir: expected the name of a model together with --weights, got a file
// MISSING: patc: error: {{.*}}nothing.patc: expected a compiled model, found no such file
// COMMAND: patc: error: {{.*}}invalid choice: 'fly'

func.func @other(%x: tensor<4xf32>) -> tensor<4xf32> {
  return %x : tensor<4xf32>
}
