// RUN: patc-opt --pattern-schedule=target=spirv-vulkan --pattern-map-to-gpu %s > %t.once
// RUN: patc-opt --pattern-schedule=target=spirv-vulkan --pattern-map-to-gpu --pattern-map-to-gpu %s > %t.twice
// RUN: diff %t.once %t.twice
func.func @relu(%x: tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32> {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<1x2x8x8xf32>) -> tensor<1x2x8x8xf32>
  return %y : tensor<1x2x8x8xf32>
}
