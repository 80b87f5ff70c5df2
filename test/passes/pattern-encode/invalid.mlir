// RUN: not patc-opt --pattern-encode="max-patterns=0" %s 2>&1 | filecheck %s --check-prefix=COUNT
// RUN: not patc-opt --pattern-encode="min-sparsity=1.5" %s 2>&1 | filecheck %s --check-prefix=SPARSITY
// RUN: not patc-opt --pattern-encode="library=27,512" %s 2>&1 | filecheck %s --check-prefix=MASK
// RUN: not patc-opt --pattern-encode="library=27,7" %s 2>&1 | filecheck %s --check-prefix=LIBRARY
// RUN: not patc-opt --pattern-encode %s 2>&1 | filecheck %s --check-prefix=PARAMETER

// COUNT: pass 'pattern-encode' expected option 'max-patterns' to be an integer of 1 or more, got
// SPARSITY: pass 'pattern-encode' expected option 'min-sparsity' to be a number from 0.0 to 1.0, got
// MASK: pass 'pattern-encode' expected option 'library' to be integers from 1 to 511, got
// LIBRARY: pass 'pattern-encode' expected option 'library' to be distinct masks with equally many entries, 2 or more, got [27, 7]
// PARAMETER: invalid.mlir:13:8: error: parameter 'missing.weight' is not in the store
func.func @weight_without_an_array(%x: tensor<1x2x4x4xf32>) -> tensor<1x1x2x2xf32> {
  %w = "pattern.parameter"() {name = "missing.weight"} : () -> tensor<1x2x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf32>, tensor<1x2x3x3xf32>) -> tensor<1x1x2x2xf32>
  return %y : tensor<1x1x2x2xf32>
}
