// RUN: patc-opt --pattern-raise %s | filecheck %s

// CHECK-LABEL: func.func @flattening_in_two_steps
// CHECK-NEXT:    tensor.collapse_shape %{{.*}} {{\[\[0\], \[1, 2, 3\]\]}} : tensor<2x4x3x3xf32> into tensor<2x36xf32>
// CHECK-NEXT:    return
func.func @flattening_in_two_steps(%input: tensor<2x4x3x3xf32>) -> tensor<2x36xf32> {
  %planes = tensor.collapse_shape %input [[0], [1], [2, 3]] : tensor<2x4x3x3xf32> into tensor<2x4x9xf32>
  %flat = tensor.collapse_shape %planes [[0], [1, 2]] : tensor<2x4x9xf32> into tensor<2x36xf32>
  return %flat : tensor<2x36xf32>
}

// CHECK-LABEL: func.func @reshape_and_back
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<2x4x3x3xf32>
// CHECK-NEXT:    return %[[INPUT]]
func.func @reshape_and_back(%input: tensor<2x4x3x3xf32>) -> tensor<2x4x3x3xf32> {
  %split = tensor.expand_shape %input [[0], [1, 2], [3], [4]] output_shape [2, 2, 2, 3, 3]
    : tensor<2x4x3x3xf32> into tensor<2x2x2x3x3xf32>
  %joined = tensor.collapse_shape %split [[0], [1, 2], [3], [4]] : tensor<2x2x2x3x3xf32> into tensor<2x4x3x3xf32>
  return %joined : tensor<2x4x3x3xf32>
}
