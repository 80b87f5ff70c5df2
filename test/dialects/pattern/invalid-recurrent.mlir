// RUN: patc-opt --split-input-file --verify-diagnostics %s

func.func @mode(%x: tensor<5x1x12xf32>, %w: tensor<12x4xf32>, %h: tensor<1x1x4xf32>) {
  // expected-error @below {{'pattern.recurrent' op expected 'mode' to be rnn, gru, gru_reset_first or lstm, got "elman"}}
  %y:2 = "pattern.recurrent"(%x, %w, %h) {activations = ["none"], direction = "forward", mode = "elman",
    operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 1, 0>}
    : (tensor<5x1x12xf32>, tensor<12x4xf32>, tensor<1x1x4xf32>) -> (tensor<5x1x4xf32>, tensor<1x1x4xf32>)
  return
}

// -----

func.func @activations(%x: tensor<5x1x12xf32>, %w: tensor<12x4xf32>, %h: tensor<1x1x4xf32>) {
  // expected-error @below {{'pattern.recurrent' op expected 2 activations of one number, got ["relu"]}}
  %y:2 = "pattern.recurrent"(%x, %w, %h) {activations = ["relu"], direction = "forward", mode = "gru",
    operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 1, 0>}
    : (tensor<5x1x12xf32>, tensor<12x4xf32>, tensor<1x1x4xf32>) -> (tensor<5x1x4xf32>, tensor<1x1x4xf32>)
  return
}

// -----

func.func @weight(%x: tensor<5x1x12xf32>, %w: tensor<12x3xf32>, %h: tensor<1x1x4xf32>) {
  // expected-error @below {{'pattern.recurrent' op expected weight of shape [12, 4], got [12, 3]}}
  %y:2 = "pattern.recurrent"(%x, %w, %h) {activations = ["relu", "relu"], direction = "forward", mode = "gru",
    operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 1, 0>}
    : (tensor<5x1x12xf32>, tensor<12x3xf32>, tensor<1x1x4xf32>) -> (tensor<5x1x4xf32>, tensor<1x1x4xf32>)
  return
}

// -----

func.func @cell(%x: tensor<5x1x16xf32>, %w: tensor<16x4xf32>, %h: tensor<1x1x4xf32>) {
  // expected-error @below {{'pattern.recurrent' op expected a cell of lstm, got none}}
  %y:2 = "pattern.recurrent"(%x, %w, %h) {activations = ["relu", "relu", "relu"], direction = "forward", mode = "lstm",
    operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 1, 0>}
    : (tensor<5x1x16xf32>, tensor<16x4xf32>, tensor<1x1x4xf32>) -> (tensor<5x1x4xf32>, tensor<1x1x4xf32>)
  return
}

// -----

func.func @results(%x: tensor<5x1x12xf32>, %w: tensor<12x4xf32>, %h: tensor<1x1x4xf32>) {
  // expected-error @below {{'pattern.recurrent' op expected resultSegmentSizes of 3 values that count the results, got}}
  %y:2 = "pattern.recurrent"(%x, %w, %h) {activations = ["relu", "relu"], direction = "forward", mode = "gru",
    operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 1, 1>}
    : (tensor<5x1x12xf32>, tensor<12x4xf32>, tensor<1x1x4xf32>) -> (tensor<5x1x4xf32>, tensor<1x1x4xf32>)
  return
}

// -----

func.func @scales(%x: tensor<5x1x12xf32>, %w: tensor<12x4xi8>, %h: tensor<1x1x4xf32>) {
  // expected-error @below {{'pattern.recurrent' op expected 'scales' to be array<f32> of 12 finite values of 0 or more, got array<f32: 1.000000e+00>}}
  %y:2 = "pattern.recurrent"(%x, %w, %h) {activations = ["relu", "relu"], direction = "forward", mode = "gru",
    operandSegmentSizes = array<i32: 1, 1, 1, 0, 0, 0, 0, 0>, resultSegmentSizes = array<i32: 1, 1, 0>,
    scales = array<f32: 1.0>}
    : (tensor<5x1x12xf32>, tensor<12x4xi8>, tensor<1x1x4xf32>) -> (tensor<5x1x4xf32>, tensor<1x1x4xf32>)
  return
}
