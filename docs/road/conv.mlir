#map = affine_map<(n, f, y, x) -> (n, f, y, x)>
func.func @main(%x: tensor<1x2x16x16xf32>) -> tensor<1x2x16x16xf32> {
  %weight = arith.constant dense<[
    [[[0.0, 0.4, 0.0], [0.2, 0.9, 0.1], [0.0, 0.0, 0.0]], [[0.0, 0.3, 0.0], [0.0, 0.7, 0.2], [0.0, 0.1, 0.0]]],
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 0.5, 0.0], [0.1, 0.8, 0.3], [0.0, 0.0, 0.0]]]
  ]> : tensor<2x2x3x3xf32>
  %zero = arith.constant 0.0 : f32
  %padded = tensor.pad %x low[0, 0, 1, 1] high[0, 0, 1, 1] {
  ^bb0(%n: index, %c: index, %i: index, %j: index):
    tensor.yield %zero : f32
  } : tensor<1x2x16x16xf32> to tensor<1x2x18x18xf32>
  %empty = tensor.empty() : tensor<1x2x16x16xf32>
  %sums = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x2x16x16xf32>) -> tensor<1x2x16x16xf32>
  %y = linalg.conv_2d_nchw_fchw ins(%padded, %weight : tensor<1x2x18x18xf32>, tensor<2x2x3x3xf32>)
    outs(%sums : tensor<1x2x16x16xf32>) -> tensor<1x2x16x16xf32>
  %relu = linalg.generic {indexing_maps = [#map, #map], iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%y : tensor<1x2x16x16xf32>) outs(%empty : tensor<1x2x16x16xf32>) {
  ^bb0(%a: f32, %out: f32):
    %is_above = arith.cmpf ugt, %a, %zero : f32
    %r = arith.select %is_above, %a, %zero : f32
    linalg.yield %r : f32
  } -> tensor<1x2x16x16xf32>
  return %relu : tensor<1x2x16x16xf32>
}
