// RUN: patc-opt --pattern-outline %s | filecheck %s

// What is no pattern op goes into private functions, fused; the net calls them.

#map = affine_map<(n, c, y, x) -> (n, c, y, x)>

// CHECK-LABEL: func.func @between_layers(
// CHECK-SAME: %[[INPUT:.*]]: tensor<1x4x8x8xf32>
// CHECK: %[[FIRST:.*]] = "pattern.activate"(%[[INPUT]])
// CHECK-NEXT: %[[MADE:.*]] = call @generic_0(%[[FIRST]])
// CHECK-SAME: pattern.ops = ["aten.silu.default (act (net.py:12))", "linalg.exp"]
// CHECK-NEXT: "pattern.max_pool2d"(%[[MADE]])
func.func @between_layers(%input: tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32> {
  %first = "pattern.activate"(%input) {activation = "relu"} : (tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32>
  %one = arith.constant 1.0 : f32
  %empty = tensor.empty() : tensor<1x4x8x8xf32>
  %sigmoid = linalg.generic {indexing_maps = [#map, #map],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}
      ins(%first : tensor<1x4x8x8xf32>) outs(%empty : tensor<1x4x8x8xf32>) {
  ^bb0(%a: f32, %out: f32):
    %n = arith.negf %a : f32
    %e = math.exp %n : f32
    %s = arith.addf %e, %one : f32
    %d = arith.divf %a, %s : f32
    linalg.yield %d : f32
  } -> tensor<1x4x8x8xf32> loc(fused<"aten.silu.default">["act"("net.py":12:0)])
  %exp = linalg.exp ins(%sigmoid : tensor<1x4x8x8xf32>) outs(%empty : tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32>
    loc(unknown)
  %last = "pattern.max_pool2d"(%exp) {dilations = array<i64: 1, 1>, kernel = array<i64: 3, 3>, pads = array<i64: 1, 1, 1, 1>,
    strides = array<i64: 1, 1>} : (tensor<1x4x8x8xf32>) -> tensor<1x4x8x8xf32>
  return %last : tensor<1x4x8x8xf32>
}

// Numbers, and tensors of one number, are copied; others become operands.

// CHECK-LABEL: func.func @constants(
// CHECK: %[[TABLE:.*]] = arith.constant dense<[0, 2, 1]>
// CHECK: call @generic_1(%[[TABLE]])
func.func @constants() -> tensor<3xi64> {
  %table = arith.constant dense<[0, 2, 1]> : tensor<3xi64>
  %two = arith.constant dense<2> : tensor<3xi64>
  %empty = tensor.empty() : tensor<3xi64>
  %sum = linalg.add ins(%table, %two : tensor<3xi64>, tensor<3xi64>) outs(%empty : tensor<3xi64>) -> tensor<3xi64>
  return %sum : tensor<3xi64>
}

// CHECK-LABEL: func.func private @generic_0(
// CHECK-SAME: attributes {pattern.outlined}
// CHECK: linalg.generic
// CHECK: math.exp
// CHECK: math.exp
// CHECK-NOT: linalg.generic
// CHECK: return

// CHECK-LABEL: func.func private @generic_1(
// CHECK: arith.addi %{{.*}}, %c2_i64
