// RUN: patc-opt --pattern-quantize --split-input-file --verify-diagnostics %s

// expected-error @+1 {{'func.func' op expected pattern.ranges to be array<f32> of a finite low and high end, got array<f32: 0xFF800000, 1.000000e+00>}}
func.func @end_at_infinity(%x: tensor<1x4xf32>) -> tensor<1x4xf32> attributes {pattern.ranges = [array<f32: 0xFF800000, 1.0>]} {
  return %x : tensor<1x4xf32>
}

// -----

// expected-error @+1 {{'func.func' op expected pattern.ranges to be array<f32> of a finite low and high end, got array<f64: 0.000000e+00, 1.000000e+00>}}
func.func @no_floats(%x: tensor<1x4xf32>) -> tensor<1x4xf32> attributes {pattern.ranges = [array<f64: 0.0, 1.0>]} {
  return %x : tensor<1x4xf32>
}

// -----

// expected-error @+1 {{'func.func' op expected pattern.ranges to be a list of 1, one an argument, got []}}
func.func @too_few(%x: tensor<1x4xf32>) -> tensor<1x4xf32> attributes {pattern.ranges = []} {
  return %x : tensor<1x4xf32>
}

// -----

// expected-error @+1 {{'func.func' op expected pattern.ranges to be a list of 1, one an argument, got "many"}}
func.func @no_list(%x: tensor<1x4xf32>) -> tensor<1x4xf32> attributes {pattern.ranges = "many"} {
  return %x : tensor<1x4xf32>
}

// -----

func.func @ends_in_the_wrong_order(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
  // expected-error @+1 {{'pattern.activate' op expected pattern.range to be array<f32> of a finite low and high end, got array<f32: 1.000000e+00, 0.000000e+00>}}
  %y = "pattern.activate"(%x) {activation = "relu", pattern.range = array<f32: 1.0, 0.0>} : (tensor<1x4xf32>) -> tensor<1x4xf32>
  return %y : tensor<1x4xf32>
}

// -----

// expected-error @+1 {{'func.func' op expected pattern.steps to be array<f32> of finite numbers above 0, got array<f32: 0.000000e+00>}}
func.func @no_step(%x: tensor<1x4xf32>) -> tensor<1x4xf32> attributes {pattern.steps = array<f32: 0.0>} {
  return %x : tensor<1x4xf32>
}

// -----

// expected-error @+1 {{'func.func' op expected pattern.biases to be a list of finite array<f32> and as long an array<i32>, got [array<f32: 1.000000e+00>]}}
func.func @no_integers(%x: tensor<1x4xf32>) -> tensor<1x4xf32> attributes {pattern.biases = [array<f32: 1.0>]} {
  return %x : tensor<1x4xf32>
}

// -----

// expected-error @+1 {{'func.func' op expected pattern.biases to be a list of finite array<f32> and as long an array<i32>, got [array<f32: 1.000000e+00>, array<i32: 1, 2>]}}
func.func @too_many(%x: tensor<1x4xf32>) -> tensor<1x4xf32>
    attributes {pattern.biases = [array<f32: 1.0>, array<i32: 1, 2>]} {
  return %x : tensor<1x4xf32>
}

// -----

func.func @too_short(%x: tensor<1x2xf32>) -> tensor<1x2xf32> attributes {pattern.ranges = [array<f32: 0.0, 2.55>]} {
  %w = arith.constant dense<1.0> : tensor<2x2xf32>
  // expected-error @+1 {{'pattern.linear' op expected pattern.correction to be array<f32> of 2 finite numbers, got array<f32: 1.000000e+00>}}
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>,
    pattern.correction = array<f32: 1.0>} : (tensor<1x2xf32>, tensor<2x2xf32>) -> tensor<1x2xf32>
  return %y : tensor<1x2xf32>
}
