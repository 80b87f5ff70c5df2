// RUN: patc-opt --pattern-schedule --pattern-schedule=threads=2 %s > %t && patc-opt %s | diff - %t

// A layer that has a schedule keeps it, whatever the options; other ops get none.

#given = #pattern.schedule<{algorithm = "elementwise", columns = 24 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 3 : i64, split = "rows", sums = 1 : i64, threads = 5 : i64}>

func.func @scheduled(%x: tensor<1x2x8x8xf32>) -> tensor<1x128xf32> {
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #given} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %flat = tensor.collapse_shape %y [[0], [1, 2, 3]] : tensor<1x2x8x8xf32> into tensor<1x128xf32>
  return %flat : tensor<1x128xf32>
}

func.func @nothing_to_compute(%x: tensor<1x2x8x8xf32>) -> (tensor<1x2x8x8xf32>, tensor<4xf32>) {
  %w = "pattern.parameter"() {name = "bias"} : () -> tensor<4xf32>
  return %x, %w : tensor<1x2x8x8xf32>, tensor<4xf32>
}
