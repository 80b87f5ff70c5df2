// RUN: patc-opt --pattern-schedule="threads=3 target=x86-64-v3" %s | filecheck %s --check-prefixes=CHECK,V3
// RUN: patc-opt --pattern-schedule="threads=4 target=x86-64-v4" %s | filecheck %s --check-prefixes=CHECK,V4

// A vector has the lanes of the target. Rows are divided where all threads get as many, else filters are.

// CHECK-LABEL: func.func @six_images_of_one_row
// V3: lanes = 8 : i64, {{.*}} split = "rows", {{.*}} threads = 3
// V4: lanes = 16 : i64, {{.*}} split = "filters", {{.*}} threads = 4
func.func @six_images_of_one_row(%x: tensor<6x8x1x16xf32>) -> tensor<6x8x1x16xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<6x8x1x16xf32>) -> tensor<6x8x1x16xf32>
  return %y : tensor<6x8x1x16xf32>
}

// CHECK-LABEL: func.func @linear_layers_divide_filters
// V3: split = "filters", {{.*}} threads = 3
// V4: split = "filters", {{.*}} threads = 4
func.func @linear_layers_divide_filters(%x: tensor<6x8xf32>, %w: tensor<9x8xf32>) -> tensor<6x9xf32> {
  %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<6x8xf32>, tensor<9x8xf32>) -> tensor<6x9xf32>
  return %y : tensor<6x9xf32>
}
