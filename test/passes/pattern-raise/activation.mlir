// RUN: patc-opt --pattern-raise %s | filecheck %s

#map = affine_map<(d0, d1) -> (d0, d1)>
#scalar = affine_map<(d0, d1) -> ()>

// CHECK-LABEL: func.func @lone_relu
// CHECK-NEXT:    "pattern.activate"(%{{.*}}) {activation = "relu"}
func.func @lone_relu(%input: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<2x4xf32>
  %relu = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%input : tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %negative = arith.cmpf ult, %a, %zero : f32
    %r = arith.select %negative, %zero, %a : f32
    linalg.yield %r : f32
  } -> tensor<2x4xf32>
  return %relu : tensor<2x4xf32>
}

// PyTorch's relu6: two ops with the bounds as tensors without dimensions.

// CHECK-LABEL: func.func @bounds_in_two_ops
// CHECK-NEXT:    "pattern.activate"(%{{.*}}) {activation = #pattern.clamp<0.000000e+00 : f32, 6.000000e+00 : f32>}
// CHECK-NEXT:    return
func.func @bounds_in_two_ops(%input: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %zero = arith.constant dense<0.0> : tensor<f32>
  %six = arith.constant dense<6.0> : tensor<f32>
  %empty = tensor.empty() : tensor<2x4xf32>
  %lower = linalg.generic {indexing_maps = [#map, #scalar, #map], iterator_types = ["parallel", "parallel"]}
      ins(%input, %zero : tensor<2x4xf32>, tensor<f32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %bound: f32, %out: f32):
    %above = arith.cmpf ogt, %a, %bound : f32
    %r = arith.select %above, %a, %bound : f32
    linalg.yield %r : f32
  } -> tensor<2x4xf32>
  %upper = linalg.generic {indexing_maps = [#scalar, #map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%six, %lower : tensor<f32>, tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%bound: f32, %a: f32, %out: f32):
    %below = arith.cmpf olt, %bound, %a : f32
    %r = arith.select %below, %bound, %a : f32
    linalg.yield %r : f32
  } -> tensor<2x4xf32>
  return %upper : tensor<2x4xf32>
}

// CHECK-LABEL: func.func @bounds_in_one_op
// CHECK-NEXT:    "pattern.activate"(%{{.*}}) {activation = #pattern.clamp<-1.000000e+00 : f32, 1.000000e-01 : f32>}
func.func @bounds_in_one_op(%input: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %minimum = arith.constant -1.0 : f32
  %maximum = arith.constant 1.000000e-01 : f64
  %empty = tensor.empty() : tensor<2x4xf32>
  %clamp = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%input : tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %lower = arith.maximumf %a, %minimum : f32
    %bound = arith.truncf %maximum : f64 to f32
    %upper = arith.minimumf %bound, %lower : f32
    linalg.yield %upper : f32
  } -> tensor<2x4xf32>
  return %clamp : tensor<2x4xf32>
}

// CHECK-LABEL: func.func @sum_takes_the_activation
// CHECK-SAME:    %[[LHS:[a-z0-9]+]]: tensor<2x4xf32>, %[[RHS:[a-z0-9]+]]: tensor<2x4xf32>
// CHECK-NEXT:    "pattern.add"(%[[LHS]], %[[RHS]]) {activation = "relu"}
// CHECK-NEXT:    return
func.func @sum_takes_the_activation(%lhs: tensor<2x4xf32>, %rhs: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<2x4xf32>
  %sum = linalg.generic {indexing_maps = [#map, #map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%lhs, %rhs : tensor<2x4xf32>, tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %b: f32, %out: f32):
    %s = arith.addf %a, %b : f32
    linalg.yield %s : f32
  } -> tensor<2x4xf32>
  %relu = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%sum : tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %r = arith.maxnumf %a, %zero : f32
    linalg.yield %r : f32
  } -> tensor<2x4xf32>
  return %relu : tensor<2x4xf32>
}

// CHECK-LABEL: func.func @factor_of_one_vanishes
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<2x4xf32>
// CHECK-NEXT:    return %[[INPUT]]
func.func @factor_of_one_vanishes(%input: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %one = arith.constant 1.0 : f32
  %empty = tensor.empty() : tensor<2x4xf32>
  %same = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel"]}
      ins(%input : tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %r = arith.mulf %a, %one : f32
    linalg.yield %r : f32
  } -> tensor<2x4xf32>
  return %same : tensor<2x4xf32>
}
