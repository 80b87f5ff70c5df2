// RUN: patc-opt --torch-decompose-complex-ops --torch-backend-to-linalg-on-tensors-backend-pipeline %s | filecheck %s

// torch-mlir's dialects, passes and pipelines are there; a flag nests a pass of functions as mlir-opt does.

// CHECK-LABEL: @relu
func.func @relu(%x: !torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32> {
  // CHECK: linalg.generic
  %y = torch.aten.relu %x : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>
  return %y : !torch.vtensor<[4],f32>
}
