// RUN: patc-opt --pattern-outline --verify-diagnostics --split-input-file %s

// One error names every op that cannot be compiled, and where.

func.func private @f(tensor<4xf32>) -> tensor<4xf32>

func.func @all_at_once(%input: tensor<4xf32>, %c: tensor<4xcomplex<f32>>) -> (tensor<4xf32>, tensor<4xcomplex<f32>>) {
  // expected-error-re @below {{cannot compile: func.call x2 ({{.*}}:9:{{.*}}:10:{{.*}}), tensor.extract_slice of tensor<4xcomplex<f32>> (join (model.py:12)), tensor.concat of tensor<2xcomplex<f32>> (join (model.py:12))}}
  %x = call @f(%input) : (tensor<4xf32>) -> tensor<4xf32>
  %y = call @f(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %half = tensor.extract_slice %c[0] [2] [1] : tensor<4xcomplex<f32>> to tensor<2xcomplex<f32>> loc("join"("model.py":12:0))
  %join = tensor.concat dim(0) %half, %half : (tensor<2xcomplex<f32>>, tensor<2xcomplex<f32>>) -> tensor<4xcomplex<f32>>
    loc("join"("model.py":12:0))
  return %y, %join : tensor<4xf32>, tensor<4xcomplex<f32>>
}

// -----

func.func @dynamic_shapes(%input: tensor<?x4xf32>) -> tensor<?x4xf32> {
  // expected-error @below {{cannot compile: linalg.exp of tensor<?x4xf32>}}
  %exp = linalg.exp ins(%input : tensor<?x4xf32>) outs(%input : tensor<?x4xf32>) -> tensor<?x4xf32>
  return %exp : tensor<?x4xf32>
}

// -----

// Nothing but a destination is left.

func.func @undefined_result() -> tensor<2x2xf32> {
  // expected-error @below {{cannot compile: tensor.empty}}
  %empty = tensor.empty() : tensor<2x2xf32>
  return %empty : tensor<2x2xf32>
}
