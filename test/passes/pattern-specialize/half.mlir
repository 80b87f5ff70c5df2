// RUN: patc-opt --pattern-demote=dtype=f16 --pattern-layout=target=aarch64-linux --pattern-schedule=target=aarch64-linux --pattern-specialize --split-input-file %s | filecheck %s

// Kernels compute in f16. Only the first and the last one see f32, which they convert as they copy.

// CHECK-LABEL: func.func @main
// CHECK-SAME:    (%{{[a-z0-9]+}}: memref<128xf32>, %{{[a-z0-9]+}}: memref<128xf32>,
// CHECK-NOT:     memref.alloc() : {{.*}}f32
// CHECK:       func.func private @elementwise_0(%{{.*}}: memref<1073741824xf32>, %{{.*}}: memref<1073741824xf16>,
// CHECK:         arith.truncf %{{.*}} : vector<8xf32> to vector<8xf16>
// CHECK:         vector.store {{.*}} memref<1073741824xf16>, vector<8xf16>
// CHECK:       func.func private @dense_direct_0
// CHECK-NOT:     f32
// CHECK:         math.fma {{.*}} : vector<8xf16>
// CHECK-NOT:     f32
// CHECK:       func.func private @elementwise_1
// CHECK:         arith.extf %{{.*}} : vector<4xf16> to vector<4xf32>
func.func @main(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  %w = arith.constant dense<1.0> : tensor<2x2x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x2x8x8xf32>, tensor<2x2x3x3xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}

// -----

// Means and linear layers sum in f32.

// CHECK-LABEL: func.func @main
// CHECK:       func.func private @global_pool_0
// CHECK:         %[[INPUTS:.*]] = vector.load {{.*}} vector<8xf16>
// CHECK:         %[[WIDE:.*]] = arith.extf %[[INPUTS]] : vector<8xf16> to vector<8xf32>
// CHECK:         arith.addf %{{.*}}, %[[WIDE]] : vector<8xf32>
// CHECK:         %[[MEAN:.*]] = arith.truncf %{{.*}} : f32 to f16
// CHECK:         memref.store %[[MEAN]]
// CHECK:       func.func private @gemv_0
// CHECK:         math.fma {{.*}} : vector<4xf32>
// CHECK:         arith.truncf %{{.*}} : f32 to f16
func.func @main(%x: tensor<1x8x8x8xf32>) -> tensor<1x3xf32> {
  %w = arith.constant dense<1.0> : tensor<3x8xf32>
  %mean = "pattern.avg_pool2d"(%x) {count_include_pad = false, dilations = array<i64: 1, 1>, kernel = array<i64: 8, 8>,
    pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>} : (tensor<1x8x8x8xf32>) -> tensor<1x8x1x1xf32>
  %flat = tensor.collapse_shape %mean [[0], [1, 2, 3]] : tensor<1x8x1x1xf32> into tensor<1x8xf32>
  %y = "pattern.linear"(%flat, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
    : (tensor<1x8xf32>, tensor<3x8xf32>) -> tensor<1x3xf32>
  return %y : tensor<1x3xf32>
}

// -----

// A sum of many products is made in parts, here of 28 of 64 channels: 11 bits would lose most of them.

// CHECK-LABEL: func.func @main
// CHECK:       func.func private @dense_direct_0
// CHECK-DAG:     %[[CHANNELS:.*]] = arith.constant 28 : index
// CHECK-DAG:     %[[ALL:.*]] = arith.constant 64 : index
// CHECK:         scf.for %[[PART:.*]] = {{.*}} iter_args(
// CHECK:           %[[FIRST:.*]] = arith.muli %[[PART]], %[[CHANNELS]]
// CHECK:           %[[END:.*]] = arith.addi %[[FIRST]], %[[CHANNELS]]
// CHECK:           %[[LAST:.*]] = arith.minui %[[END]], %[[ALL]]
// CHECK:           scf.for %{{.*}} = %[[FIRST]] to %[[LAST]] {{.*}} iter_args(
// CHECK:             math.fma
// CHECK:           arith.addf {{.*}} : vector<8xf16>
func.func @main(%x: tensor<1x64x8x8xf32>) -> tensor<1x1x8x8xf32> {
  %w = arith.constant dense<1.0> : tensor<1x64x3x3xf32>
  %y = "pattern.conv2d"(%x, %w) {activation = "none", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 0, 0>, pads = array<i64: 1, 1, 1, 1>, strides = array<i64: 1, 1>}
    : (tensor<1x64x8x8xf32>, tensor<1x64x3x3xf32>) -> tensor<1x1x8x8xf32>
  return %y : tensor<1x1x8x8xf32>
}
