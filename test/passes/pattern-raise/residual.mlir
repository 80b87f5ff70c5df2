// RUN: patc-opt --pattern-raise %s | filecheck %s

#map = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>

// CHECK-LABEL: func.func @later_of_two_convolutions_takes_the_residual
// CHECK:         %[[FIRST:.*]] = "pattern.conv2d"(%{{.*}}, %[[FIRST_WEIGHT:.*]]) {
// CHECK-NEXT:    "pattern.conv2d"(%{{.*}}, %{{.*}}, %[[FIRST]]) {
// CHECK-NEXT:    return
func.func @later_of_two_convolutions_takes_the_residual(
    %input: tensor<1x2x4x4xf32>, %first: tensor<2x2x1x1xf32>, %second: tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x2x4x4xf32>
  %a = linalg.conv_2d_nchw_fchw ins(%input, %first : tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>)
    outs(%zero : tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %b = linalg.conv_2d_nchw_fchw ins(%input, %second : tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>)
    outs(%zero : tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %sum = linalg.generic {indexing_maps = [#map, #map, #map],
                         iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%b, %a : tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) outs(%zero : tensor<1x2x4x4xf32>) {
  ^bb0(%l: f32, %r: f32, %out: f32):
    %s = arith.addf %l, %r : f32
    linalg.yield %s : f32
  } -> tensor<1x2x4x4xf32>
  return %sum : tensor<1x2x4x4xf32>
}

// The convolution moves to the addition: the pooled skip comes after it.

// CHECK-LABEL: func.func @residual_computed_after_the_convolution
// CHECK:         %[[SKIP:.*]] = "pattern.max_pool2d"
// CHECK-NEXT:    "pattern.conv2d"(%{{.*}}, %{{.*}}, %[[SKIP]])
func.func @residual_computed_after_the_convolution(
    %input: tensor<1x2x4x4xf32>, %weight: tensor<2x2x2x2xf32>) -> tensor<1x2x3x3xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x2x3x3xf32>
  %lowest = arith.constant dense<0xFF800000> : tensor<1x2x3x3xf32>
  %conv = linalg.conv_2d_nchw_fchw ins(%input, %weight : tensor<1x2x4x4xf32>, tensor<2x2x2x2xf32>)
    outs(%zero : tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  %pool = linalg.pooling_nchw_max ins(%input, %window : tensor<1x2x4x4xf32>, tensor<2x2xf32>)
    outs(%lowest : tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %sum = linalg.generic {indexing_maps = [#map, #map, #map],
                         iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %pool : tensor<1x2x3x3xf32>, tensor<1x2x3x3xf32>) outs(%zero : tensor<1x2x3x3xf32>) {
  ^bb0(%l: f32, %r: f32, %out: f32):
    %s = arith.addf %l, %r : f32
    linalg.yield %s : f32
  } -> tensor<1x2x3x3xf32>
  return %sum : tensor<1x2x3x3xf32>
}

// CHECK-LABEL: func.func @convolution_with_two_users_takes_no_residual
// CHECK:         %[[CONV:.*]] = "pattern.conv2d"(%[[INPUT:.*]], %{{.*}}) {activation = "none"
// CHECK-NEXT:    %[[SUM:.*]] = "pattern.add"(%[[CONV]], %[[INPUT]]) {activation = "relu"}
// CHECK-NEXT:    return %[[CONV]], %[[SUM]]
func.func @convolution_with_two_users_takes_no_residual(
    %input: tensor<1x2x4x4xf32>, %weight: tensor<2x2x1x1xf32>) -> (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) {
  %zero = arith.constant dense<0.0> : tensor<1x2x4x4xf32>
  %conv = linalg.conv_2d_nchw_fchw ins(%input, %weight : tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>)
    outs(%zero : tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %sum = linalg.generic {indexing_maps = [#map, #map, #map],
                         iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %input : tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) outs(%zero : tensor<1x2x4x4xf32>) {
  ^bb0(%l: f32, %r: f32, %out: f32):
    %s = arith.addf %l, %r : f32
    %z = arith.constant 0.0 : f32
    %m = arith.maximumf %s, %z : f32
    linalg.yield %m : f32
  } -> tensor<1x2x4x4xf32>
  return %conv, %sum : tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>
}

// CHECK-LABEL: func.func @residual_behind_the_activation
// CHECK:         "pattern.conv2d"(%[[INPUT:.*]], %{{.*}}, %[[INPUT]]) {activation = "relu"
// CHECK-SAME:      joins_last
// CHECK-NOT:     "pattern.add"
func.func @residual_behind_the_activation(
    %input: tensor<1x2x4x4xf32>, %weight: tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x2x4x4xf32>
  %z = arith.constant 0.0 : f32
  %conv = linalg.conv_2d_nchw_fchw ins(%input, %weight : tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>)
    outs(%zero : tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %relu = linalg.generic {indexing_maps = [#map, #map],
                          iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv : tensor<1x2x4x4xf32>) outs(%zero : tensor<1x2x4x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %m = arith.maximumf %a, %z : f32
    linalg.yield %m : f32
  } -> tensor<1x2x4x4xf32>
  %sum = linalg.generic {indexing_maps = [#map, #map, #map],
                         iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%relu, %input : tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) outs(%zero : tensor<1x2x4x4xf32>) {
  ^bb0(%l: f32, %r: f32, %out: f32):
    %s = arith.addf %l, %r : f32
    linalg.yield %s : f32
  } -> tensor<1x2x4x4xf32>
  return %sum : tensor<1x2x4x4xf32>
}
