// RUN: patc-opt --pattern-map-to-gpu --split-input-file --verify-diagnostics %s

func.func @without_a_schedule(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @+1 {{'pattern.activate' op expected a 'schedule' attribute (run pattern-schedule first), got none}}
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

func.func @a_schedule_for_a_cpu(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @+1 {{'pattern.activate' op expected a schedule with algorithm elementwise, lanes 4, split pixels, got 'elementwise', lanes 8, split rows}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #pattern.schedule<{algorithm = "elementwise",
    columns = 8 : i64, filters = 1 : i64, lanes = 8 : i64, rows = 1 : i64, split = "rows", sums = 1 : i64,
    threads = 1 : i64}>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

func.func @another_op(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x16x8xf32> {
  // expected-error @+1 {{'tensor.concat' op expected a pattern op, a constant or a reshape, got tensor.concat}}
  %y = tensor.concat dim(2) %x, %x : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> tensor<1x2x16x8xf32>
  return %y : tensor<1x2x16x8xf32>
}

// -----

#gpu = #pattern.schedule<{algorithm = "elementwise", columns = 4 : i64, filters = 1 : i64, lanes = 4 : i64,
  rows = 1 : i64, split = "pixels", sums = 1 : i64, threads = 32 : i64}>
func.func @another_element_type(%x: tensor<1x2x8x8xf64>) -> tensor<1x2x8x8xf64> {
  // expected-error @+1 {{'pattern.activate' op expected f32 or f16 tensors, got tensor<1x2x8x8xf64>}}
  %y = "pattern.activate"(%x) {activation = "relu", schedule = #gpu} : (tensor<1x2x8x8xf64>) -> tensor<1x2x8x8xf64>
  return %y : tensor<1x2x8x8xf64>
}

// -----

#gpu = #pattern.schedule<{algorithm = "elementwise", columns = 4 : i64, filters = 1 : i64, lanes = 4 : i64,
  rows = 1 : i64, split = "pixels", sums = 1 : i64, threads = 32 : i64}>
func.func @mixed_element_types(%x: tensor<1x2x8x8xf32>, %z: tensor<1x2x8x8xf16>) -> tensor<1x2x8x8xf32> {
  // expected-error @+1 {{'pattern.add' op expected operands of f32 like the result, got tensor<1x2x8x8xf16>}}
  %y = "pattern.add"(%x, %z) {activation = "relu", schedule = #gpu}
    : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf16>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

#pool = #pattern.schedule<{algorithm = "pool", columns = 4 : i64, filters = 1 : i64, lanes = 4 : i64,
  rows = 1 : i64, split = "pixels", sums = 1 : i64, threads = 32 : i64}>
func.func @no_halo(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @+1 {{'pattern.max_pool2d' op expected an input with a halo of at least [1, 1, 1, 1] and rows of 4-element vectors (run pattern-layout with target=spirv-vulkan first), got tensor<1x2x8x8xf32>}}
  %y = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>, schedule = #pool}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

#direct = #pattern.schedule<{algorithm = "dense-direct", columns = 4 : i64, filters = 1 : i64, lanes = 4 : i64,
  rows = 1 : i64, split = "pixels", sums = 1 : i64, threads = 32 : i64}>
func.func @weights_are_arguments(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x1x1xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @+1 {{'pattern.conv2d' op expected constant weight, got tensor<2x2x1x1xf32>}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>,
    schedule = #direct} : (tensor<1x2x8x8xf32>, tensor<2x2x1x1xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

#direct = #pattern.schedule<{algorithm = "dense-direct", columns = 4 : i64, filters = 2 : i64, lanes = 4 : i64,
  rows = 1 : i64, split = "pixels", sums = 1 : i64, threads = 32 : i64}>
func.func @blocks_across_groups(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  %w = arith.constant dense<1.0> : tensor<2x1x1x1xf32>
  // expected-error @+1 {{'pattern.conv2d' op expected a schedule with filters of a divisor of 1, got 2}}
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 2 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>,
    schedule = #direct} : (tensor<1x2x8x8xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

#direct = #pattern.schedule<{algorithm = "pattern-direct", columns = 4 : i64, filters = 2 : i64, lanes = 4 : i64,
  rows = 1 : i64, split = "pixels", sums = 1 : i64, threads = 32 : i64}>
#halo = #pattern.layout<{fill = "zero", halo = array<i64: 1, 4, 1, 1>, phases = 1 : i64, plane = 144 : i64, row = 12 : i64}>
func.func @filters_that_keep_others(%x: tensor<1x2x8x8xf32, #halo>) -> tensor<1x2x8x8xf32> {
  %values = arith.constant dense<[[1., 2., 3., 4.], [5., 6., 7., 8.]]> : tensor<2x4xf32>
  %index = arith.constant dense<[0, 1]> : tensor<2xi16>
  %offset = arith.constant dense<[0, 1, 2]> : tensor<3xi32>
  %pattern_offsets = arith.constant dense<[[0, 1], [0, 1]]> : tensor<2x2xi16>
  %reorder = arith.constant dense<[0, 1]> : tensor<2xi16>
  // expected-error @+1 {{'pattern.sparse_conv2d' op expected 2 filters each that keep the same kernels, for a schedule of 2 filters, got others}}
  %y = "pattern.sparse_conv2d"(%x, %values, %index, %offset, %pattern_offsets, %reorder) {activation = "none",
    dilations = array<i64: 1, 1>, format = #pattern.fkw<array<i64: 3, 3>, array<i64: 27>>,
    operandSegmentSizes = array<i32: 1, 1, 1, 1, 1, 1, 0, 0, 0>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>, schedule = #direct} : (tensor<1x2x8x8xf32, #halo>, tensor<2x4xf32>, tensor<2xi16>,
    tensor<3xi32>, tensor<2x2xi16>, tensor<2xi16>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

#halo = #pattern.layout<{fill = "zero", halo = array<i64: 1, 4, 1, 1>, phases = 1 : i64, plane = 144 : i64, row = 12 : i64}>
func.func @flattens_a_padded_tensor(%x: tensor<1x2x8x8xf32, #halo>) -> tensor<1x128xf32> {
  // expected-error @+1 {{'tensor.collapse_shape' op expected a packed tensor (run pattern-layout first), got tensor<1x2x8x8xf32}}
  %y = tensor.collapse_shape %x [[0], [1, 2, 3]] : tensor<1x2x8x8xf32, #halo> into tensor<1x128xf32>
  return %y : tensor<1x128xf32>
}
