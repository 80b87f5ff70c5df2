// RUN: patc-opt --pattern-raise %s | filecheck %s

#map = affine_map<(d0, d1, d2, d3) -> (d0, d1, d2, d3)>
#channels = affine_map<(d0, d1, d2, d3) -> (d0, d1)>
#channels_1x1 = affine_map<(d0, d1, d2, d3) -> (d0, d1, 0, 0)>
#matrix = affine_map<(d0, d1) -> (d0, d1)>

// CHECK-LABEL: func.func @max_pool
// CHECK-NEXT:    "pattern.max_pool2d"(%{{.*}}) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
// CHECK-SAME:      pads = array<i64: 1, 1, 2, 2>, strides = array<i64: 2, 2>}
func.func @max_pool(%input: tensor<1x4x8x8xf32>) -> tensor<1x4x5x5xf32> {
  %lowest = arith.constant 0xFF800000 : f32
  %padded = tensor.pad %input low[0, 0, 1, 1] high[0, 0, 2, 2] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %lowest : f32
  } : tensor<1x4x8x8xf32> to tensor<1x4x11x11xf32>
  %empty = tensor.empty() : tensor<1x4x5x5xf32>
  %init = linalg.fill ins(%lowest : f32) outs(%empty : tensor<1x4x5x5xf32>) -> tensor<1x4x5x5xf32>
  %window = tensor.empty() : tensor<3x3xf32>
  %pool = linalg.pooling_nchw_max {dilations = dense<1> : vector<2xi64>, strides = dense<2> : vector<2xi64>}
    ins(%padded, %window : tensor<1x4x11x11xf32>, tensor<3x3xf32>)
    outs(%init : tensor<1x4x5x5xf32>) -> tensor<1x4x5x5xf32>
  return %pool : tensor<1x4x5x5xf32>
}

// CHECK-LABEL: func.func @average_pool_divides_by_the_window
// CHECK-NEXT:    "pattern.avg_pool2d"(%{{.*}}) {count_include_pad = true,
// CHECK-SAME:      kernel = array<i64: 2, 2>, pads = array<i64: 1, 1, 1, 1>
func.func @average_pool_divides_by_the_window(%input: tensor<1x4x4x4xf32>) -> tensor<1x4x5x5xf32> {
  %zero = arith.constant 0.0 : f32
  %four = arith.constant 4.0 : f32
  %padded = tensor.pad %input low[0, 0, 1, 1] high[0, 0, 1, 1] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<1x4x4x4xf32> to tensor<1x4x6x6xf32>
  %empty = tensor.empty() : tensor<1x4x5x5xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x4x5x5xf32>) -> tensor<1x4x5x5xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  %sum = linalg.pooling_nchw_sum ins(%padded, %window : tensor<1x4x6x6xf32>, tensor<2x2xf32>)
    outs(%init : tensor<1x4x5x5xf32>) -> tensor<1x4x5x5xf32>
  %mean = linalg.generic {indexing_maps = [#map, #map],
                          iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%sum : tensor<1x4x5x5xf32>) outs(%empty : tensor<1x4x5x5xf32>) {
  ^bb0(%a: f32, %out: f32):
    %d = arith.divf %a, %four : f32
    linalg.yield %d : f32
  } -> tensor<1x4x5x5xf32>
  return %mean : tensor<1x4x5x5xf32>
}

// The divisor is what the window covers of the input: rows min(y + 1, 4) - max(y - 1, 0), columns the same.

// CHECK-LABEL: func.func @average_pool_divides_by_what_is_covered
// CHECK-NEXT:    "pattern.avg_pool2d"(%{{.*}}) {count_include_pad = false,
func.func @average_pool_divides_by_what_is_covered(%input: tensor<1x4x4x4xf32>) -> tensor<1x4x5x5xf32> {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : i64
  %c1 = arith.constant 1 : i64
  %c4 = arith.constant 4 : i64
  %padded = tensor.pad %input low[0, 0, 1, 1] high[0, 0, 1, 1] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<1x4x4x4xf32> to tensor<1x4x6x6xf32>
  %empty = tensor.empty() : tensor<1x4x5x5xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<1x4x5x5xf32>) -> tensor<1x4x5x5xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  %sum = linalg.pooling_nchw_sum ins(%padded, %window : tensor<1x4x6x6xf32>, tensor<2x2xf32>)
    outs(%init : tensor<1x4x5x5xf32>) -> tensor<1x4x5x5xf32>
  %mean = linalg.generic {indexing_maps = [#map, #map],
                          iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%sum : tensor<1x4x5x5xf32>) outs(%empty : tensor<1x4x5x5xf32>) {
  ^bb0(%a: f32, %out: f32):
    %y = linalg.index 2 : index
    %x = linalg.index 3 : index
    %row = arith.index_cast %y : index to i64
    %column = arith.index_cast %x : index to i64
    %row_next = arith.addi %row, %c1 : i64
    %row_end = arith.minsi %row_next, %c4 : i64
    %row_before = arith.subi %row, %c1 : i64
    %row_begin = arith.maxsi %row_before, %c0 : i64
    %rows = arith.subi %row_end, %row_begin : i64
    %column_next = arith.addi %column, %c1 : i64
    %column_end = arith.minsi %column_next, %c4 : i64
    %column_before = arith.subi %column, %c1 : i64
    %column_begin = arith.maxsi %column_before, %c0 : i64
    %columns = arith.subi %column_end, %column_begin : i64
    %count = arith.muli %rows, %columns : i64
    %divisor = arith.sitofp %count : i64 to f32
    %d = arith.divf %a, %divisor : f32
    linalg.yield %d : f32
  } -> tensor<1x4x5x5xf32>
  return %mean : tensor<1x4x5x5xf32>
}

// CHECK-LABEL: func.func @global_average
// CHECK-NEXT:    %[[MEAN:.*]] = "pattern.avg_pool2d"(%{{.*}}) {count_include_pad = true,
// CHECK-SAME:      kernel = array<i64: 5, 7>
// CHECK-NEXT:    return %[[MEAN]] : tensor<2x4x1x1xf32>
func.func @global_average(%input: tensor<2x4x5x7xf32>) -> tensor<2x4x1x1xf32> {
  %zero = arith.constant dense<0.0> : tensor<2x4x1x1xf32>
  %count = arith.constant 35.0 : f32
  %sum = linalg.generic {indexing_maps = [#map, #channels_1x1],
                         iterator_types = ["parallel", "parallel", "reduction", "reduction"]}
      ins(%input : tensor<2x4x5x7xf32>) outs(%zero : tensor<2x4x1x1xf32>) {
  ^bb0(%a: f32, %out: f32):
    %s = arith.addf %a, %out : f32
    linalg.yield %s : f32
  } -> tensor<2x4x1x1xf32>
  %mean = linalg.generic {indexing_maps = [#map, #map],
                          iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%sum : tensor<2x4x1x1xf32>) outs(%zero : tensor<2x4x1x1xf32>) {
  ^bb0(%a: f32, %out: f32):
    %d = arith.divf %a, %count : f32
    linalg.yield %d : f32
  } -> tensor<2x4x1x1xf32>
  return %mean : tensor<2x4x1x1xf32>
}

// CHECK-LABEL: func.func @global_average_of_rank_2
// CHECK-NEXT:    %[[MEAN:.*]] = "pattern.avg_pool2d"(%{{.*}}) {{.*}} -> tensor<2x4x1x1xf32>
// CHECK-NEXT:    tensor.collapse_shape %[[MEAN]] {{\[\[0\], \[1, 2, 3\]\]}} : tensor<2x4x1x1xf32> into tensor<2x4xf32>
func.func @global_average_of_rank_2(%input: tensor<2x4x5x7xf32>) -> tensor<2x4xf32> {
  %zero = arith.constant dense<0.0> : tensor<2x4xf32>
  %reciprocal = arith.constant 0.0285714286 : f32
  %sum = linalg.generic {indexing_maps = [#map, #channels],
                         iterator_types = ["parallel", "parallel", "reduction", "reduction"]}
      ins(%input : tensor<2x4x5x7xf32>) outs(%zero : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %s = arith.addf %out, %a : f32
    linalg.yield %s : f32
  } -> tensor<2x4xf32>
  %mean = linalg.generic {indexing_maps = [#matrix, #matrix], iterator_types = ["parallel", "parallel"]}
      ins(%sum : tensor<2x4xf32>) outs(%zero : tensor<2x4xf32>) {
  ^bb0(%a: f32, %out: f32):
    %d = arith.mulf %a, %reciprocal : f32
    linalg.yield %d : f32
  } -> tensor<2x4xf32>
  return %mean : tensor<2x4xf32>
}

// CHECK-LABEL: func.func @pools_of_single_elements_vanish
// CHECK-SAME:    %[[INPUT:[a-z0-9]+]]: tensor<1x4x1x1xf32>
// CHECK-NEXT:    return %[[INPUT]]
func.func @pools_of_single_elements_vanish(%input: tensor<1x4x1x1xf32>) -> tensor<1x4x1x1xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x4x1x1xf32>
  %lowest = arith.constant dense<0xFF800000> : tensor<1x4x1x1xf32>
  %window = tensor.empty() : tensor<1x1xf32>
  %max = linalg.pooling_nchw_max ins(%input, %window : tensor<1x4x1x1xf32>, tensor<1x1xf32>)
    outs(%lowest : tensor<1x4x1x1xf32>) -> tensor<1x4x1x1xf32>
  %pool = linalg.pooling_nchw_sum ins(%max, %window : tensor<1x4x1x1xf32>, tensor<1x1xf32>)
    outs(%zero : tensor<1x4x1x1xf32>) -> tensor<1x4x1x1xf32>
  %sum = linalg.generic {indexing_maps = [#map, #channels_1x1],
                         iterator_types = ["parallel", "parallel", "reduction", "reduction"]}
      ins(%pool : tensor<1x4x1x1xf32>) outs(%zero : tensor<1x4x1x1xf32>) {
  ^bb0(%a: f32, %out: f32):
    %s = arith.addf %a, %out : f32
    linalg.yield %s : f32
  } -> tensor<1x4x1x1xf32>
  return %sum : tensor<1x4x1x1xf32>
}

// CHECK-LABEL: func.func @average_with_another_divisor
// CHECK-NEXT:    "pattern.avg_pool2d"(%{{.*}}) {count_include_pad = true, {{.*}}divisor = 3.000000e+00 : f32,
func.func @average_with_another_divisor(%input: tensor<1x2x4x4xf32>) -> tensor<1x2x3x3xf32> {
  %zero = arith.constant dense<0.0> : tensor<1x2x3x3xf32>
  %three = arith.constant 3.0 : f32
  %window = tensor.empty() : tensor<2x2xf32>
  %sum = linalg.pooling_nchw_sum ins(%input, %window : tensor<1x2x4x4xf32>, tensor<2x2xf32>)
    outs(%zero : tensor<1x2x3x3xf32>) -> tensor<1x2x3x3xf32>
  %mean = linalg.generic {indexing_maps = [#map, #map],
                          iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%sum : tensor<1x2x3x3xf32>) outs(%zero : tensor<1x2x3x3xf32>) {
  ^bb0(%a: f32, %out: f32):
    %d = arith.divf %a, %three : f32
    linalg.yield %d : f32
  } -> tensor<1x2x3x3xf32>
  return %mean : tensor<1x2x3x3xf32>
}

// Sums that nothing divides, one of which only picks elements.

// CHECK-LABEL: func.func @sums
// CHECK-NEXT:    "pattern.avg_pool2d"(%{{.*}}) {{.*}}divisor = 1.000000e+00 : f32, kernel = array<i64: 1, 1>,
// CHECK-SAME:      strides = array<i64: 2, 2>
// CHECK-NEXT:    "pattern.avg_pool2d"(%{{.*}}) {{.*}}divisor = 1.000000e+00 : f32, kernel = array<i64: 4, 4>,
func.func @sums(%input: tensor<1x2x4x4xf32>) -> (tensor<1x2x2x2xf32>, tensor<1x2x1x1xf32>) {
  %zero = arith.constant dense<0.0> : tensor<1x2x2x2xf32>
  %zero_1x1 = arith.constant dense<0.0> : tensor<1x2x1x1xf32>
  %window = tensor.empty() : tensor<1x1xf32>
  %picked = linalg.pooling_nchw_sum {strides = dense<2> : vector<2xi64>}
    ins(%input, %window : tensor<1x2x4x4xf32>, tensor<1x1xf32>)
    outs(%zero : tensor<1x2x2x2xf32>) -> tensor<1x2x2x2xf32>
  %sum = linalg.generic {indexing_maps = [#map, #channels_1x1],
                         iterator_types = ["parallel", "parallel", "reduction", "reduction"]}
      ins(%input : tensor<1x2x4x4xf32>) outs(%zero_1x1 : tensor<1x2x1x1xf32>) {
  ^bb0(%a: f32, %out: f32):
    %s = arith.addf %a, %out : f32
    linalg.yield %s : f32
  } -> tensor<1x2x1x1xf32>
  return %picked, %sum : tensor<1x2x2x2xf32>, tensor<1x2x1x1xf32>
}

// Padding is cut off where no window reads a stride of it or more; what is left unread may be a part of the input.

// CHECK-LABEL: func.func @strides_beyond_the_window
// CHECK-NEXT:    "pattern.max_pool2d"(%{{.*}}) {{.*}}kernel = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 3>,
func.func @strides_beyond_the_window(%input: tensor<1x2x6x7xf32>) -> tensor<1x2x2x3xf32> {
  %lowest = arith.constant 0xFF800000 : f32
  %padded = tensor.pad %input low[0, 0, 0, 0] high[0, 0, 3, 3] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %lowest : f32
  } : tensor<1x2x6x7xf32> to tensor<1x2x9x10xf32>
  %init = arith.constant dense<0xFF800000> : tensor<1x2x2x3xf32>
  %window = tensor.empty() : tensor<2x2xf32>
  %pool = linalg.pooling_nchw_max {strides = dense<3> : vector<2xi64>}
    ins(%padded, %window : tensor<1x2x9x10xf32>, tensor<2x2xf32>)
    outs(%init : tensor<1x2x2x3xf32>) -> tensor<1x2x2x3xf32>
  return %pool : tensor<1x2x2x3xf32>
}

// The first window counts its padding, the second not what rounding up has added: 2 and 1 elements.

// CHECK-LABEL: func.func @average_that_counts_a_part_of_the_padding
// CHECK-NEXT:    "pattern.avg_pool2d"(%{{.*}}) {count_include_pad = true, {{.*}}pads = array<i64: 0, 1, 0, 2>,
// CHECK-SAME:      uncounted_pads = array<i64: 0, 1>}
func.func @average_that_counts_a_part_of_the_padding(%input: tensor<1x2x1x1xf32>) -> tensor<1x2x1x2xf32> {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : i64
  %c2 = arith.constant 2 : i64
  %c3 = arith.constant 3 : i64
  %padded = tensor.pad %input low[0, 0, 0, 1] high[0, 0, 0, 2] {
  ^bb0(%n: index, %c: index, %y: index, %x: index):
    tensor.yield %zero : f32
  } : tensor<1x2x1x1xf32> to tensor<1x2x1x4xf32>
  %init = arith.constant dense<0.0> : tensor<1x2x1x2xf32>
  %window = tensor.empty() : tensor<1x2xf32>
  %sum = linalg.pooling_nchw_sum {strides = dense<[1, 2]> : vector<2xi64>}
    ins(%padded, %window : tensor<1x2x1x4xf32>, tensor<1x2xf32>)
    outs(%init : tensor<1x2x1x2xf32>) -> tensor<1x2x1x2xf32>
  %mean = linalg.generic {indexing_maps = [#map, #map],
                          iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%sum : tensor<1x2x1x2xf32>) outs(%init : tensor<1x2x1x2xf32>) {
  ^bb0(%a: f32, %out: f32):
    %x = linalg.index 3 : index
    %column = arith.index_cast %x : index to i64
    %begin = arith.muli %column, %c2 : i64
    %next = arith.addi %begin, %c2 : i64
    %end = arith.minsi %next, %c3 : i64
    %columns = arith.subi %end, %begin : i64
    %count = arith.maxsi %columns, %c0 : i64
    %divisor = arith.sitofp %count : i64 to f32
    %d = arith.divf %a, %divisor : f32
    linalg.yield %d : f32
  } -> tensor<1x2x1x2xf32>
  return %mean : tensor<1x2x1x2xf32>
}
