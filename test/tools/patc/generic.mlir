// RUN: patc report %s --threads 1 | filecheck %s --check-prefix=REPORT
// RUN: patc run %s --threads 1 --profile | filecheck %s --check-prefix=PROFILE
// RUN: not patc compile %S/Inputs/unknown-dialect.mlir -o %t.patc 2>&1 | filecheck %s --check-prefix=UNKNOWN

// REPORT: computes linalg.tanh ({{[^ ]*}}generic.mlir:{{[0-9]+}}:8){{$}}
// PROFILE: layers: {{[0-9.]+ [num]s}}, of which {{[0-9.]+ [num]s}} (100%) as any linalg is
// UNKNOWN: patc: error: {{.*}}unknown-dialect.mlir:2:18: operation being parsed with an unregistered dialect{{$}}

func.func @main(%x: tensor<1x8x64x64xf32>) -> tensor<1x8x64x64xf32> {
  %0 = tensor.empty() : tensor<1x8x64x64xf32>
  %y = linalg.tanh ins(%x : tensor<1x8x64x64xf32>) outs(%0 : tensor<1x8x64x64xf32>) -> tensor<1x8x64x64xf32>
  return %y : tensor<1x8x64x64xf32>
}
