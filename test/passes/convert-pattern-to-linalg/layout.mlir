// RUN: patc-opt --convert-pattern-to-linalg %s | filecheck %s

#planar = #pattern.layout<{fill = "zero", halo = array<i64: 1, 1, 1, 1>, phases = 1 : i64, plane = 64 : i64, row = 8 : i64}>

// CHECK-LABEL: func.func @layouts_vanish
// CHECK-SAME:    (%[[INPUT:[a-z0-9]+]]: tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
// CHECK-NOT:     pattern
// CHECK:         %[[RELU:.*]] = linalg.generic {{.*}} ins(%[[INPUT]] : tensor<1x2x4x4xf32>)
// CHECK:         return %[[RELU]] : tensor<1x2x4x4xf32>
func.func @layouts_vanish(%input: tensor<1x2x4x4xf32, #planar>) -> tensor<1x2x4x4xf32> {
  %relu = "pattern.activate"(%input) {activation = "relu"}
    : (tensor<1x2x4x4xf32, #planar>) -> tensor<1x2x4x4xf32, #planar>
  %packed = "pattern.relayout"(%relu) : (tensor<1x2x4x4xf32, #planar>) -> tensor<1x2x4x4xf32>
  return %packed : tensor<1x2x4x4xf32>
}

// CHECK-LABEL: func.func private @declared(tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
func.func private @declared(tensor<1x2x4x4xf32, #planar>) -> tensor<1x2x4x4xf32, #planar>
