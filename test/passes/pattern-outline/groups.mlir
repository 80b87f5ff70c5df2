// RUN: patc-opt --pattern-outline %s | filecheck %s

// One group holds all that hands tensors on, unless a pattern op comes between: here the product needs the
// exponential's group by way of the pool, so that it cannot be in it.

// CHECK-LABEL: func.func @around_a_layer(
// CHECK: %[[FIRST:.*]] = call @generic_0(
// CHECK: %[[MIDDLE:.*]] = "pattern.max_pool2d"(%[[FIRST]])
// CHECK: call @generic_1(%[[FIRST]], %[[MIDDLE]])
func.func @around_a_layer(%input: tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32> {
  %empty = tensor.empty() : tensor<1x4x8x8xf32>
  %exp = linalg.exp ins(%input : tensor<1x4x8x8xf32>) outs(%empty : tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32>
  %pool = "pattern.max_pool2d"(%exp) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32>
  %product = linalg.mul ins(%exp, %pool : tensor<1x4x8x8xf32>, tensor<1x4x8x8xf32>)
    outs(%empty : tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32>
  return %product : tensor<1x4x8x8xf32>
}

// Ops that have nothing to do with each other are called one by one; the empty tensor is nobody's.

// CHECK-LABEL: func.func @apart(
// CHECK: call @generic_2(
// CHECK: call @generic_3(
func.func @apart(%a: tensor<4xf32>, %b: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %empty = tensor.empty() : tensor<4xf32>
  %x = linalg.exp ins(%a : tensor<4xf32>) outs(%empty : tensor<4xf32>) -> tensor<4xf32>
  %y = linalg.exp ins(%b : tensor<4xf32>) outs(%empty : tensor<4xf32>) -> tensor<4xf32>
  return %x, %y : tensor<4xf32>, tensor<4xf32>
}

// A call comes before all that reads its results, though its last op came behind.

// CHECK-LABEL: func.func @sorted(
// CHECK: %[[OTHER:.*]] = "pattern.activate"(%arg1)
// CHECK: %[[MADE:.*]]:2 = call @generic_4(%arg0, %[[OTHER]])
// CHECK: "pattern.activate"(%[[MADE]]#0)
func.func @sorted(%a: tensor<4x4xf32>, %b: tensor<4x4xf32>) -> (tensor<4x4xf32>, tensor<4x4xf32>) {
  %empty = tensor.empty() : tensor<4x4xf32>
  %x = linalg.exp ins(%a : tensor<4x4xf32>) outs(%empty : tensor<4x4xf32>) -> tensor<4x4xf32>
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %w = "pattern.activate"(%y) {activation = "relu"} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %z = "pattern.activate"(%b) {activation = "relu"} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %sum = linalg.add ins(%x, %z : tensor<4x4xf32>, tensor<4x4xf32>) outs(%empty : tensor<4x4xf32>) -> tensor<4x4xf32>
  return %w, %sum : tensor<4x4xf32>, tensor<4x4xf32>
}

// Sums and activations of what linalg makes, for what is linalg, are linalg again.

// CHECK-LABEL: func.func @fused(
// CHECK-NEXT: call @generic_5(%arg0)
// CHECK-NEXT: return
func.func @fused(%a: tensor<4x4xf32>) -> tensor<4x4xf32> {
  %empty = tensor.empty() : tensor<4x4xf32>
  %x = linalg.exp ins(%a : tensor<4x4xf32>) outs(%empty : tensor<4x4xf32>) -> tensor<4x4xf32>
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<4x4xf32>) -> tensor<4x4xf32>
  %z = linalg.exp ins(%y : tensor<4x4xf32>) outs(%empty : tensor<4x4xf32>) -> tensor<4x4xf32>
  return %z : tensor<4x4xf32>
}

// So is a layer whose weights are computed at run time.

// CHECK-LABEL: func.func @weights(
// CHECK-NEXT: call @generic_6(%arg1, %arg0)
// CHECK-NEXT: return
func.func @weights(%a: tensor<2x3xf32>, %w: tensor<4x3xf32>) -> tensor<2x4xf32> {
  %y = "pattern.linear"(%a, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x3xf32>, tensor<4x3xf32>) -> tensor<2x4xf32>
  return %y : tensor<2x4xf32>
}

// A flattening that only linalg reads is part of the group.

// CHECK-LABEL: func.func @flat(
// CHECK-NEXT: call @generic_7(%arg0)
// CHECK-NEXT: return
func.func @flat(%a: tensor<2x3x2x2xf32>) -> tensor<2x12xf32> {
  %flat = tensor.collapse_shape %a [[0], [1, 2, 3]] : tensor<2x3x2x2xf32> into tensor<2x12xf32>
  %empty = tensor.empty() : tensor<2x12xf32>
  %x = linalg.exp ins(%flat : tensor<2x12xf32>) outs(%empty : tensor<2x12xf32>) -> tensor<2x12xf32>
  return %x : tensor<2x12xf32>
}

// A number that is read from a tensor is read where it is used.

// CHECK-LABEL: func.func @numbers(
// CHECK-NEXT: call @generic_8(%arg0, %arg1)
// CHECK-NEXT: return
func.func @numbers(%a: tensor<f32>, %b: tensor<4xf32>) -> tensor<4xf32> {
  %number = tensor.extract %a[] : tensor<f32>
  %filled = linalg.fill ins(%number : f32) outs(%b : tensor<4xf32>) -> tensor<4xf32>
  %sum = linalg.add ins(%filled, %b : tensor<4xf32>, tensor<4xf32>) outs(%filled : tensor<4xf32>) -> tensor<4xf32>
  return %sum : tensor<4xf32>
}
