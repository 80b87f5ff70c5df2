// RUN: patc-opt --pattern-raise --mlir-print-debuginfo %s | filecheck %s

#map = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>

// CHECK: "pattern.conv2d"{{.*}}activation = "relu"{{.*}} loc(#[[CONV:loc[0-9]+]])
// CHECK: #[[CONV]] = loc("layer1.conv")
func.func @convolution_keeps_its_place(%input: tensor<1x2x4x4xf32>, %weight: tensor<2x2x1x1xf32>) -> tensor<1x2x4x4xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x2x4x4xf32>
  %conv = linalg.conv_2d_nchw_fchw ins(%input, %weight : tensor<1x2x4x4xf32>, tensor<2x2x1x1xf32>)
    outs(%zero : tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> loc("layer1.conv")
  %sum = linalg.generic {indexing_maps = [#map, #map, #map],
                         iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%conv, %input : tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) outs(%zero : tensor<1x2x4x4xf32>) {
  ^bb0(%l: f32, %r: f32, %out: f32):
    %s = arith.addf %l, %r : f32
    %z = arith.constant 0.0 : f32
    %m = arith.maximumf %s, %z : f32
    linalg.yield %m : f32
  } -> tensor<1x2x4x4xf32> loc("layer1.add")
  return %sum : tensor<1x2x4x4xf32>
}
