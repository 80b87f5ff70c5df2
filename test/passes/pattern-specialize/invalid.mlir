// RUN: patc-opt --pattern-specialize --split-input-file --verify-diagnostics %s

func.func @no_schedule(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'pattern.activate' op expected a 'schedule' attribute (run pattern-schedule first), got none}}
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

#given = #pattern.schedule<{algorithm = "dense-direct", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>

func.func @computed_weights(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x1x1xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'pattern.conv2d' op expected constant weight, got tensor<2x2x1x1xf32>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, schedule = #given,
    strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

#given = #pattern.schedule<{algorithm = "gemv", columns = 1 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>

func.func @computed_bias(%x: tensor<1x8xf32>, %bias: tensor<2xf32>) -> tensor<1x2xf32> {
  %w = arith.constant dense<1.0> : tensor<2x8xf32>
  // expected-error @below {{'pattern.linear' op expected constant bias, got tensor<2xf32>}}
  %y = "pattern.linear"(%x, %w, %bias) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0>, schedule = #given}
    : (tensor<1x8xf32>, tensor<2x8xf32>, tensor<2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}

// -----

#given = #pattern.schedule<{algorithm = "elementwise", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>

func.func @op_of_another_dialect(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x16x8xf32> {
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #given} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  // expected-error @below {{'tensor.concat' op expected a pattern op, a constant or a reshape, got tensor.concat}}
  %z = tensor.concat dim(2) %x, %y : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> tensor<1x2x16x8xf32>
  return %z : tensor<1x2x16x8xf32>
}

// -----

#given = #pattern.schedule<{algorithm = "elementwise", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>

func.func @argument_in_a_concatenation(%x: tensor<1x2x8x8xf32>) -> tensor<1x4x8x8xf32> {
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #given} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  // expected-error @below {{'tensor.concat' op expected operands in the result's memory (run pattern-layout first), got operand 0}}
  %z = tensor.concat dim(1) %x, %y : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> tensor<1x4x8x8xf32>
  return %z : tensor<1x4x8x8xf32>
}

// -----

func.func @input_without_the_halo_of_the_window(%x: tensor<1x1x4x4xf32>, %w: tensor<1x1x3x3xf32>) -> tensor<1x1x4x4xf32> {
  // expected-error @below {{'pattern.conv2d' op expected an input with a halo of at least [1, 1, 1, 1] (run pattern-layout first), got tensor<1x1x4x4xf32>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, schedule = #pattern.schedule<{algorithm = "dense-direct", columns = 4 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 1 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>, strides = array<i64: 1, 1>} : (tensor<1x1x4x4xf32>, tensor<1x1x3x3xf32>) -> tensor<1x1x4x4xf32>
  return %y : tensor<1x1x4x4xf32>
}

// -----

#given = #pattern.schedule<{algorithm = "elementwise", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>

func.func @type_without_kernels(%x: tensor<1x2x8x8xbf16>) -> tensor<1x2x8x8xbf16> {
  // expected-error @below {{'pattern.activate' op expected f32 or f16 tensors, got tensor<1x2x8x8xbf16>}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #given} : (tensor<1x2x8x8xbf16>) -> tensor<1x2x8x8xbf16>
  return %y : tensor<1x2x8x8xbf16>
}

// -----

#given = #pattern.schedule<{algorithm = "elementwise", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "rows", sums = 1 : i64, threads = 1 : i64}>

func.func @two_element_types(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf16> {
  // expected-error @below {{'pattern.activate' op expected operands of f16 like the result, got tensor<1x2x8x8xf32>}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #given} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf16>
  return %y : tensor<1x2x8x8xf16>
}

// -----

func.func @constant_of_another_file(%x: tensor<2xf32>) -> tensor<2xf32> {
  // expected-error @below {{expected the values of dense_resource<elsewhere> in the text, found none}}
  %c = arith.constant dense_resource<elsewhere> : tensor<2xf32>
  %y = "pattern.add"(%x, %c) {activation = "none", schedule = #pattern.schedule<{algorithm = "elementwise", rows = 1, columns = 16, lanes = 16, filters = 1, sums = 1, split = "filters", threads = 1}>} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  return %y : tensor<2xf32>
}

// -----

#given = #pattern.schedule<{algorithm = "pool", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>

func.func @algorithm_of_another_kind(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'pattern.activate' op expected a schedule with algorithm elementwise, got 'pool'}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #given} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

func.func @windows_over_whole_planes(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x1x1xf32> {
  // expected-error @below {{'pattern.avg_pool2d' op expected a schedule with algorithm global-pool, got 'pool'}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>, kernel = array<i64: 8, 8>, pads = array<i64: 0, 0, 0, 0>, schedule = #pattern.schedule<{algorithm = "pool", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x1x1xf32>
  return %y : tensor<1x2x1x1xf32>
}

// -----

func.func @planes_as_windows(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x7x7xf32> {
  // expected-error @below {{'pattern.avg_pool2d' op expected a schedule with algorithm pool, got 'global-pool'}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>, kernel = array<i64: 2, 2>, pads = array<i64: 0, 0, 0, 0>, schedule = #pattern.schedule<{algorithm = "global-pool", columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "filters", sums = 1 : i64, threads = 1 : i64}>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x7x7xf32>
  return %y : tensor<1x2x7x7xf32>
}

// -----

func.func @schedule_without_a_field(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'pattern.activate' op expected 'schedule' as pattern-schedule writes it, got #pattern.schedule<{algorithm = "elementwise", rows = 1 : i64}>}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #pattern.schedule<{algorithm = "elementwise", rows = 1}>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

// expected-error @below {{'builtin.module' op expected pattern.images to be a number of images from 2 on, got "many"}}
module attributes {pattern.images = "many"} {
  func.func @no_number(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {
    %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<4x4xf32>) -> tensor<4x4xf32>
    return %y : tensor<4x4xf32>
  }
}

// -----

func.func @schedule_lanes(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'pattern.activate' op expected a schedule with lanes of a power of two from 2 to 128, got 1}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #pattern.schedule<{algorithm = "elementwise", columns = 8, filters = 1, lanes = 1, rows = 1, split = "rows", sums = 1, threads = 1}>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

func.func @schedule_threads(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'pattern.activate' op expected a schedule with threads of 1024 or less, got 2147483648}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #pattern.schedule<{algorithm = "elementwise", columns = 8, filters = 1, lanes = 8, rows = 1, split = "rows", sums = 1, threads = 2147483648}>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

func.func @schedule_sums(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'pattern.activate' op expected a schedule with sums of 64 or less, got 65}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #pattern.schedule<{algorithm = "elementwise", columns = 8, filters = 1, lanes = 8, rows = 1, split = "rows", sums = 65, threads = 1}>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}
