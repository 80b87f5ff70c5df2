// RUN: patc-opt --pattern-layout --split-input-file %s | filecheck %s

// The halo must not win a maximum: zeros lose where no value is negative, elsewhere it is minus infinity.

// CHECK-LABEL: func.func @max_pool_of_any_values
// CHECK:         %[[Y:.*]] = "pattern.activate"
// CHECK-SAME:      #pattern.layout<{fill = "lowest", halo = array<i64: 1, 1, 1, 1>
// CHECK:         "pattern.max_pool2d"(%[[Y]])
func.func @max_pool_of_any_values(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  %y = "pattern.activate"(%x) {activation = #pattern.clamp<-1.0 : f32, 6.0 : f32>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %z = "pattern.max_pool2d"(%y) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %z : tensor<1x2x8x8xf32>
}

// -----

// CHECK-LABEL: func.func @max_pool_of_values_from_zero_up
// CHECK:         "pattern.activate"
// CHECK-SAME:      fill = "zero"
// CHECK:         "pattern.max_pool2d"
// CHECK-SAME:      -> tensor<1x2x8x8xf32, #pattern.layout<{fill = "zero"
// CHECK:         "pattern.max_pool2d"
func.func @max_pool_of_values_from_zero_up(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %once = "pattern.max_pool2d"(%y) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %twice = "pattern.max_pool2d"(%once) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %twice : tensor<1x2x8x8xf32>
}

// -----

// CHECK-LABEL: func.func @max_pool_and_convolution_need_two_layouts
// CHECK:         %[[Y:.*]] = "pattern.add"
// CHECK-SAME:      -> tensor<1x2x8x8xf32, #pattern.layout<{fill = "zero"
// CHECK:         "pattern.conv2d"(%[[Y]]
// CHECK:         %[[FOR_POOL:.*]] = "pattern.relayout"(%[[Y]])
// CHECK-SAME:      -> tensor<1x2x8x8xf32, #pattern.layout<{fill = "lowest"
// CHECK:         "pattern.max_pool2d"(%[[FOR_POOL]])
func.func @max_pool_and_convolution_need_two_layouts(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x3x3xf32>)
    -> (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) {
  %y = "pattern.add"(%x, %x) {activation = "none"}
    : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %a = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x8x8xf32>
  %b = "pattern.max_pool2d"(%y) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %a, %b : tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>
}

// -----

// A mean over whole planes reads rows with their halo, which has to be zeros.

// CHECK-LABEL: func.func @global_pool_takes_any_halo_of_zeros
// CHECK:         %[[Y:.*]] = "pattern.activate"
// CHECK-SAME:      halo = array<i64: 1, 1, 1, 1>
// CHECK-NOT:     pattern.relayout
// CHECK:         "pattern.avg_pool2d"(%[[Y]])
func.func @global_pool_takes_any_halo_of_zeros(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x3x3xf32>)
    -> (tensor<1x2x8x8xf32>, tensor<1x2x1x1xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %a = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x8x8xf32>
  %mean = "pattern.avg_pool2d"(%y) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 8, 8>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x1x1xf32>
  return %a, %mean : tensor<1x2x8x8xf32>, tensor<1x2x1x1xf32>
}

// -----

// CHECK-LABEL: func.func @global_pool_beside_a_max_pool
// CHECK:         %[[Y:.*]] = "pattern.add"
// CHECK-SAME:      -> tensor<1x2x8x8xf32
// CHECK-NOT:       "lowest"
// CHECK:         %[[FOR_MAX:.*]] = "pattern.relayout"(%[[Y]])
// CHECK-SAME:      fill = "lowest"
// CHECK:         "pattern.max_pool2d"(%[[FOR_MAX]])
// CHECK:         "pattern.avg_pool2d"(%[[Y]])
func.func @global_pool_beside_a_max_pool(%x: tensor<1x2x8x8xf32>) -> (tensor<1x2x8x8xf32>, tensor<1x2x1x1xf32>) {
  %y = "pattern.add"(%x, %x) {activation = "none"}
    : (tensor<1x2x8x8xf32>, tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %max = "pattern.max_pool2d"(%y) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>,
    pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %mean = "pattern.avg_pool2d"(%y) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 8, 8>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x1x1xf32>
  return %max, %mean : tensor<1x2x8x8xf32>, tensor<1x2x1x1xf32>
}

// -----

// Of rows of two phases only the halo is filled: here it is all that is left of a row.

// CHECK-LABEL: func.func @global_pool_beside_a_stride
// CHECK:         "pattern.activate"
// CHECK-SAME:      halo = array<i64: 1, 1, 1, 7>, phases = 2 : i64, {{.*}} row = 8
func.func @global_pool_beside_a_stride(%x: tensor<1x2x8x8xf32>, %w: tensor<2x2x3x3xf32>)
    -> (tensor<1x2x4x4xf32>, tensor<1x2x1x1xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  %a = "pattern.conv2d"(%y, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 2, 2>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x4x4xf32>
  %mean = "pattern.avg_pool2d"(%y) {count_include_pad = false, dilations = array<i64: 1, 1>,
    kernel = array<i64: 8, 8>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>) -> tensor<1x2x1x1xf32>
  return %a, %mean : tensor<1x2x4x4xf32>, tensor<1x2x1x1xf32>
}
