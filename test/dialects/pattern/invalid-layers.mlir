// RUN: patc-opt --split-input-file --verify-diagnostics %s

// A parameter.

func.func @name_type() {
  // expected-error @below {{'pattern.parameter' op expected 'name' to be a string, got 3 : i64}}
  %y = "pattern.parameter"() {name = 3 : i64} : () -> tensor<4xf32>
  return
}

// -----

// Fully connected layers.

func.func @linear_input_rank(%x: tensor<2x8x1xf32>, %w: tensor<4x8xf32>) {
  // expected-error @below {{'pattern.linear' op expected input of rank 2, got rank 3}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x8x1xf32>, tensor<4x8xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @linear_weight_shape(%x: tensor<2x8xf32>, %w: tensor<4x9xf32>) {
  // expected-error @below {{'pattern.linear' op expected weight of shape [F, 8], got [4, 9]}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x8xf32>, tensor<4x9xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @linear_result_shape(%x: tensor<2x8xf32>, %w: tensor<4x8xf32>) {
  // expected-error @below {{'pattern.linear' op expected result of shape [2, 4], got [2, 5]}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x8xf32>, tensor<4x8xf32>) -> tensor<2x5xf32>
  return
}

// -----

func.func @linear_bias_shape(%x: tensor<2x8xf32>, %w: tensor<4x8xf32>, %b: tensor<5xf32>) {
  // expected-error @below {{'pattern.linear' op expected bias of shape [4], got [5]}}
  %y = "pattern.linear"(%x, %w, %b) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0>}
    : (tensor<2x8xf32>, tensor<4x8xf32>, tensor<5xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @linear_activation(%x: tensor<2x8xf32>, %w: tensor<4x8xf32>) {
  // expected-error @below {{'pattern.linear' op expected activation "none", "relu", #pattern.clamp or #pattern.activation, got "tanh"}}
  %y = "pattern.linear"(%x, %w) {activation = "tanh", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<2x8xf32>, tensor<4x8xf32>) -> tensor<2x4xf32>
  return
}

// -----

// Pooling.

func.func @pool_kernel(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.max_pool2d' op expected 'kernel' to be array<i64> of 2 values of 1 or more, got array<i64: 3>}}
  %y = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>) ->
    tensor<1x8x6x6xf32>
  return
}

// -----

func.func @pool_input_rank(%x: tensor<8x6x6xf32>) {
  // expected-error @below {{'pattern.max_pool2d' op expected input of rank 4, got rank 3}}
  %y = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<8x6x6xf32>) ->
    tensor<1x8x6x6xf32>
  return
}

// -----

func.func @pool_result_rank(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.max_pool2d' op expected result of rank 4, got rank 3}}
  %y = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>) ->
    tensor<8x6x6xf32>
  return
}

// -----

func.func @pool_strides(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.max_pool2d' op expected 'strides' to be array<i64> of 2 values of 1 or more, got array<i64: 0, 0>}}
  %y = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 0, 0>} : (tensor<1x8x6x6xf32>) ->
    tensor<1x8x6x6xf32>
  return
}

// -----

func.func @pool_result_size(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.max_pool2d' op expected result batch, height and width [1, 6, 6], got [1, 3, 3]}}
  %y = "pattern.max_pool2d"(%x) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x8x6x6xf32>) ->
    tensor<1x8x3x3xf32>
  return
}

// -----

func.func @pool_channels(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.avg_pool2d' op expected 8 result channels, got 4}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>,
    kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x4x6x6xf32>
  return
}

// -----

func.func @pool_pads(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.avg_pool2d' op expected 'pads' to be array<i64> of 4 values of 0 or more, got array<i64: 1, 1>}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>,
    kernel = array<i64: 3, 3>, pads = array<i64: 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x8x6x6xf32>
  return
}

// -----

func.func @pool_divisor_of_zero(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.avg_pool2d' op expected 'divisor' to be a finite f32 other than 0, got 0.000000e+00 : f32}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>,
    divisor = 0.0 : f32, kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 2, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x8x7x6xf32>
  return
}

// -----

func.func @pool_divisor_type(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.avg_pool2d' op expected 'divisor' to be a finite f32 other than 0, got 4 : i64}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>,
    divisor = 4 : i64, kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 2, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x8x7x6xf32>
  return
}

// -----

func.func @pool_uncounted_pads_type(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.avg_pool2d' op expected 'uncounted_pads' to be array<i64> of 2 values of 0 or more, got array<i64: 1>}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>,
    kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 2, 1>, strides = array<i64: 1, 1>, uncounted_pads = array<i64: 1>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x8x7x6xf32>
  return
}

// -----

func.func @pool_uncounted_pads(%x: tensor<1x8x6x6xf32>) {
  // expected-error @below {{'pattern.avg_pool2d' op expected 'uncounted_pads' of 2, 1 or less, the padding, got 2, 2}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = true, dilations = array<i64: 1, 1>,
    kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 2, 1>, strides = array<i64: 1, 1>, uncounted_pads = array<i64: 2, 2>}
    : (tensor<1x8x6x6xf32>) -> tensor<1x8x7x6xf32>
  return
}

// -----

// Elementwise ops.

func.func @add_shapes(%a: tensor<1x4xf32>, %b: tensor<1x5xf32>) {
  // expected-error @below {{'pattern.add' op expected operands and result of one shape, got [1, 4], [1, 5], [1, 4]}}
  %y = "pattern.add"(%a, %b) {activation = "none"} : (tensor<1x4xf32>, tensor<1x5xf32>) ->
    tensor<1x4xf32>
  return
}

// -----

func.func @add_activation(%a: tensor<4xf32>, %b: tensor<4xf32>) {
  // expected-error @below {{'pattern.add' op expected activation "none", "relu", #pattern.clamp or #pattern.activation, got #pattern.fkw<array<i64: 1, 1>, array<i64: 1>>}}
  %y = "pattern.add"(%a, %b) {activation = #pattern.fkw<array<i64: 1, 1>, array<i64: 1>>}
    : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @factors(%a: tensor<1x4x2x2xf32>, %b: tensor<4xf32>) {
  // expected-error @below {{'pattern.multiply' op expected operands and result of one shape, got [1, 4, 2, 2], [4], [1, 4, 2, 2]}}
  %y = "pattern.multiply"(%a, %b) {activation = "none"} : (tensor<1x4x2x2xf32>, tensor<4xf32>) -> tensor<1x4x2x2xf32>
  return
}

// -----

func.func @residual_of_rows(%x: tensor<1x4x2x2xf32>, %w: tensor<4x4x1x1xf32>, %r: tensor<1x4x2x1xf32>) {
  // expected-error @below {{'pattern.conv2d' op expected residual of shape [1, 4, 2, 2], got [1, 4, 2, 1]}}
  %y = "pattern.conv2d"(%x, %w, %r) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 1>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x4x2x2xf32>, tensor<4x4x1x1xf32>, tensor<1x4x2x1xf32>) -> tensor<1x4x2x2xf32>
  return
}

// -----

func.func @unknown_join(%x: tensor<2x4xf32>, %w: tensor<4x4xf32>, %r: tensor<2x4xf32>) {
  // expected-error @below {{'pattern.linear' op expected 'join' to be one of add, subtract, subtract_from, multiply, divide, got "power"}}
  %y = "pattern.linear"(%x, %w, %r) {activation = "none", join = "power", operandSegmentSizes = array<i32: 1, 1, 0, 1>}
    : (tensor<2x4xf32>, tensor<4x4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  return
}

// -----

func.func @activation_of_channels(%a: tensor<1x4x2x2xf32>) {
  // expected-error @below {{'pattern.activate' op expected constants of 4 numbers, one a channel, got 2}}
  %y = "pattern.activate"(%a) {activation = #pattern.activation<"leaky_relu", [array<f32: 1.0, 2.0>]>}
    : (tensor<1x4x2x2xf32>) -> tensor<1x4x2x2xf32>
  return
}

// -----

func.func @activation_of_words(%a: tensor<1x4x2x2xf32>) {
  // expected-error @below {{'pattern.activate' op expected constants of #pattern.activation to be floats, got "0.1"}}
  %y = "pattern.activate"(%a) {activation = #pattern.activation<"leaky_relu", ["0.1"]>}
    : (tensor<1x4x2x2xf32>) -> tensor<1x4x2x2xf32>
  return
}

// -----

func.func @activate_shapes(%a: tensor<1x4xf32>) {
  // expected-error @below {{'pattern.activate' op expected input and result of one shape, got [1, 4], [4]}}
  %y = "pattern.activate"(%a) {activation = "none"} : (tensor<1x4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @activate_activation(%a: tensor<4xf32>) {
  // expected-error @below {{'pattern.activate' op expected activation "none", "relu", #pattern.clamp or #pattern.activation, got ""}}
  %y = "pattern.activate"(%a) {activation = ""} : (tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @relayout_shapes(%a: tensor<1x4xf32>) {
  // expected-error @below {{'pattern.relayout' op expected input and result of one shape, got [1, 4], [1, 5]}}
  %y = "pattern.relayout"(%a) : (tensor<1x4xf32>) -> tensor<1x5xf32>
  return
}

// -----

func.func @depth_to_space_mode(%a: tensor<1x8x3x4xf32>) {
  // expected-error @below {{'pattern.depth_to_space' op expected 'mode' to be "CRD" or "DCR", got "ABC"}}
  %y = "pattern.depth_to_space"(%a) {activation = "none", mode = "ABC", steps = array<i64: 2, 2>}
    : (tensor<1x8x3x4xf32>) -> tensor<1x2x6x8xf32>
  return
}

// -----

func.func @depth_to_space_shape(%a: tensor<1x8x3x4xf32>) {
  // expected-error @below {{'pattern.depth_to_space' op expected result of shape [1, 2, 6, 8], got [1, 2, 7, 8]}}
  %y = "pattern.depth_to_space"(%a) {activation = "none", mode = "CRD", steps = array<i64: 2, 2>}
    : (tensor<1x8x3x4xf32>) -> tensor<1x2x7x8xf32>
  return
}

// -----

// What the dialect itself requires.

func.func @operand_type(%a: vector<4xf32>) {
  // expected-error @below {{'pattern.activate' op expected ranked tensors of static shape, got vector<4xf32>}}
  %y = "pattern.activate"(%a) {activation = "none"} : (vector<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @unknown_op(%a: tensor<4xf32>) {
  // expected-error @below {{unregistered operation 'pattern.softmax'}}
  "pattern.softmax"(%a) : (tensor<4xf32>) -> ()
  return
}

// -----

func.func @attribute_arity(%a: tensor<4xf32>) {
  // expected-error @below {{expected 2 type arguments, but had 1}}
  %y = "pattern.activate"(%a) {activation = #pattern.clamp<0.0 : f32>} : (tensor<4xf32>) -> tensor<4xf32>
  return
}

// -----

func.func @explanation_that_is_no_record(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  // expected-error @below {{'pattern.activate' op expected 'explanation' as pattern-schedule writes it, got 1 : i64}}
  %y = "pattern.activate"(%x) {activation = "relu", explanation = 1} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

func.func @resample_planes(%a: tensor<1x2x3x4xf32>, %i: tensor<1x6xi32>) {
  // expected-error @below {{'pattern.resample' op expected result of 1 images and 2 channels, got [1, 3, 6, 6]}}
  %y = "pattern.resample"(%a, %i, %i) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0>}
    : (tensor<1x2x3x4xf32>, tensor<1x6xi32>, tensor<1x6xi32>) -> tensor<1x3x6x6xf32>
  return
}

// -----

func.func @resample_size(%a: tensor<1x2x3x4xf32>, %i: tensor<1x6xi32>) {
  // expected-error @below {{'pattern.resample' op expected columns of shape [taps, 7], got [1, 6]}}
  %y = "pattern.resample"(%a, %i, %i) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0>}
    : (tensor<1x2x3x4xf32>, tensor<1x6xi32>, tensor<1x6xi32>) -> tensor<1x2x6x7xf32>
  return
}

// -----

func.func @resample_weights(%a: tensor<1x2x3x4xf32>, %i: tensor<2x6xi32>, %w: tensor<1x6xf32>) {
  // expected-error @below {{'pattern.resample' op expected row_weights of shape [2, 6], got [1, 6]}}
  %y = "pattern.resample"(%a, %i, %i, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 1, 1, 0, 0>}
    : (tensor<1x2x3x4xf32>, tensor<2x6xi32>, tensor<2x6xi32>, tensor<1x6xf32>) -> tensor<1x2x6x6xf32>
  return
}

// -----

// Layouts: what a plane has to hold.

func.func @layout_fields(%x: tensor<1x2x8x8xf32>) {
  // expected-error @below {{'pattern.relayout' op expected #pattern.layout with fill, halo, phases, plane and row}}
  %y = "pattern.relayout"(%x) : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32, #pattern.layout<{halo = array<i64: 0, 0, 0, 0>}>>
  return
}

// -----

func.func @layout_kinds(%x: tensor<1x2x8x8xf32>) {
  // expected-error @below {{'pattern.relayout' op expected #pattern.layout with fill, halo, phases, plane and row}}
  %y = "pattern.relayout"(%x) : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32, #pattern.layout<{fill = "zero", halo = array<i64: 0, 0, 0, 0>, phases = 1 : i64, plane = "64", row = 8 : i64}>>
  return
}

// -----

func.func @layout_halo(%x: tensor<1x2x8x8xf32>) {
  // expected-error @below {{'pattern.relayout' op expected #pattern.layout with a halo of 4 sizes of 0 or more, filled with zero or lowest}}
  %y = "pattern.relayout"(%x) : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32, #pattern.layout<{fill = "zero", halo = array<i64: 0, -1, 0, 0>, phases = 1 : i64, plane = 64 : i64, row = 8 : i64}>>
  return
}

// -----

func.func @layout_row(%x: tensor<1x2x8x8xf32>) {
  // expected-error @below {{'pattern.relayout' op expected #pattern.layout with rows of 1 + 8 elements or more}}
  %y = "pattern.relayout"(%x) : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32, #pattern.layout<{fill = "zero", halo = array<i64: 0, 1, 0, 0>, phases = 1 : i64, plane = 64 : i64, row = 8 : i64}>>
  return
}

// -----

func.func @layout_phases(%x: tensor<1x2x8x8xf32>) {
  // expected-error @below {{'pattern.relayout' op expected #pattern.layout with rows of 0 + 8 elements or more}}
  %y = "pattern.relayout"(%x) : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32, #pattern.layout<{fill = "zero", halo = array<i64: 0, 0, 0, 0>, phases = 0 : i64, plane = 64 : i64, row = 8 : i64}>>
  return
}

// -----

func.func @layout_plane(%x: tensor<1x2x8x8xf32>) {
  // expected-error @below {{'pattern.relayout' op expected #pattern.layout with a plane of 9 x 8 to 549755813888 elements}}
  %y = "pattern.relayout"(%x) : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32, #pattern.layout<{fill = "lowest", halo = array<i64: 1, 0, 0, 0>, phases = 1 : i64, plane = 64 : i64, row = 8 : i64}>>
  return
}

// -----

func.func @layout_rank(%x: tensor<2x8xf32>) {
  // expected-error @below {{'pattern.activate' op expected a tensor of rank 4 with #pattern.layout}}
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<2x8xf32>)
    -> tensor<2x8xf32, #pattern.layout<{fill = "zero", halo = array<i64: 0, 0, 0, 0>, phases = 1 : i64, plane = 64 : i64, row = 8 : i64}>>
  return
}

// -----

func.func @counted_pads(%x: tensor<1x2x8x8xf32>) {
  // expected-error @below {{'pattern.avg_pool2d' op expected 'count_include_pad' to be true or false, got 1 : i64}}
  %y = "pattern.avg_pool2d"(%x) {count_include_pad = 1 : i64, dilations = array<i64: 1, 1>, kernel = array<i64: 8, 8>,
    pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x1x1xf32>
  return
}

// -----

func.func @bytes_without_scales(%x: tensor<1x4xf32>, %w: tensor<2x4xi8>) {
  // expected-error @+1 {{'pattern.linear' op expected 'scales', one a filter, together with weights of i8 or i1, got None}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x4xf32>, tensor<2x4xi8>) -> tensor<1x2xf32>
  return
}

// -----

func.func @scales_of_floats(%x: tensor<1x4xf32>, %w: tensor<2x4xf32>) {
  // expected-error @+1 {{'pattern.linear' op expected 'scales', one a filter, together with weights of i8 or i1, got array<f32: 1.000000e+00, 1.000000e+00>}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    scales = array<f32: 1.0, 1.0>} : (tensor<1x4xf32>, tensor<2x4xf32>) -> tensor<1x2xf32>
  return
}

// -----

func.func @too_few_scales(%x: tensor<1x4xf32>, %w: tensor<2x4xi1>) {
  // expected-error @+1 {{'pattern.linear' op expected 'scales' to be array<f32> of 2 finite values of 0 or more, got array<f32: 1.000000e+00>}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    scales = array<f32: 1.0>} : (tensor<1x4xf32>, tensor<2x4xi1>) -> tensor<1x2xf32>
  return
}
