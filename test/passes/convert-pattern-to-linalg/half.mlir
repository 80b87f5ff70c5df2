// RUN: patc-opt --convert-pattern-to-linalg %s | filecheck %s

// Layers on f16 compute in f32 and round once.

// CHECK-LABEL: func.func @computes_in_f32
// CHECK-NOT:     pattern.
// CHECK:         %[[HALF:.*]] = linalg.generic {{.*}} ins(%{{.*}} : tensor<1x2x4x4xf32>)
// CHECK:           arith.truncf %{{.*}} : f32 to f16
// CHECK:         linalg.generic {{.*}} ins(%[[HALF]] : tensor<1x2x4x4xf16>)
// CHECK:           arith.extf
// CHECK:         linalg.conv_2d_nchw_fchw {{.*}} -> tensor<1x2x4x4xf32>
// CHECK:         arith.addf
// CHECK:         arith.maximumf %{{.*}} : f32
// CHECK:         arith.truncf
// CHECK:         } -> tensor<1x2x4x4xf16>
// CHECK:         arith.extf
// CHECK:         } -> tensor<1x2x4x4xf32>
// CHECK:         return %{{.*}} : tensor<1x2x4x4xf32>
func.func @computes_in_f32(%x: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32> {
  %w = arith.constant dense<1.0> : tensor<2x2x1x1xf16>
  %b = arith.constant dense<1.0> : tensor<2xf16>
  %half = "pattern.relayout"(%x) : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf16>
  %y = "pattern.conv2d"(%half, %w, %b, %half) {activation = "relu", dilations = array<i64: 1, 1>, groups = 1 : i64,
    operandSegmentSizes = array<i32: 1, 1, 1, 1>, pads = array<i64: 0, 0, 0, 0>, strides = array<i64: 1, 1>}
    : (tensor<1x2x4x4xf16>, tensor<2x2x1x1xf16>, tensor<2xf16>, tensor<1x2x4x4xf16>) -> tensor<1x2x4x4xf16>
  %z = "pattern.relayout"(%y) : (tensor<1x2x4x4xf16>) -> tensor<1x2x4x4xf32>
  return %z : tensor<1x2x4x4xf32>
}
