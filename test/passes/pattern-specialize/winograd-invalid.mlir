// RUN: patc-opt --pattern-layout --pattern-specialize --split-input-file --verify-diagnostics %s

#given = #pattern.schedule<{algorithm = "winograd", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 4 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>

func.func @dilated(%x: tensor<1x1x8x8xf32>) -> tensor<1x1x4x8xf32> {
  %w = arith.constant dense<1.0> : tensor<1x1x3x3xf32>
  %z = "pattern.relayout"(%x) {schedule = #pattern.schedule<{algorithm = "elementwise", columns = 8 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 1 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>} : (tensor<1x1x8x8xf32>) -> tensor<1x1x8x8xf32>
  // expected-error @below {{'pattern.conv2d' op expected a schedule with algorithm dense-direct or depthwise-direct, got 'winograd'}}
  %y = "pattern.conv2d"(%z, %w) {activation = "none", dilations = array<i64: 2, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 1, 0, 1>, schedule = #given,
    strides = array<i64: 1, 1>} : (tensor<1x1x8x8xf32>, tensor<1x1x3x3xf32>) -> tensor<1x1x4x8xf32>
  return %y : tensor<1x1x4x8xf32>
}

// -----

#given = #pattern.schedule<{algorithm = "winograd", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 4 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>
#input = #pattern.layout<{fill = "zero", halo = array<i64: 0, 0, 0, 0>, phases = 1 : i64, plane = 144 : i64, row = 16 : i64}>

func.func @not_split_into_phases(%x: tensor<1x1x8x8xf32, #input>) -> tensor<1x1x1x1xf32> {
  %w = arith.constant dense<1.0> : tensor<1x1x7x7xf32>
  // expected-error @below {{'pattern.conv2d' op expected a schedule with algorithm dense-direct or depthwise-direct, got 'winograd'}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, schedule = #given,
    strides = array<i64: 2, 2>} : (tensor<1x1x8x8xf32, #input>, tensor<1x1x7x7xf32>) -> tensor<1x1x1x1xf32>
  return %y : tensor<1x1x1x1xf32>
}

// -----

#given = #pattern.schedule<{algorithm = "winograd", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 4 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>
#input = #pattern.layout<{fill = "zero", halo = array<i64: 0, 0, 0, 0>, phases = 1 : i64, plane = 144 : i64, row = 16 : i64}>

func.func @half_precision(%x: tensor<1x1x8x8xf16, #input>) -> tensor<1x1x6x6xf16> {
  %w = arith.constant dense<1.0> : tensor<1x1x3x3xf16>
  // expected-error @below {{'pattern.conv2d' op expected a schedule with algorithm dense-direct or depthwise-direct, got 'winograd'}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, schedule = #given,
    strides = array<i64: 1, 1>} : (tensor<1x1x8x8xf16, #input>, tensor<1x1x3x3xf16>) -> tensor<1x1x6x6xf16>
  return %y : tensor<1x1x6x6xf16>
}
