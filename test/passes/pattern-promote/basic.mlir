// RUN: patc-opt --pattern-promote %s > %t
// RUN: filecheck %s --input-file %t
// RUN: patc-opt --pattern-promote %t | diff %t -

// Constants are widened, casts go, and arguments and results keep their types.

// CHECK-LABEL: func.func @net
// CHECK-SAME:    (%[[X:[a-z0-9]+]]: tensor<1x8xf16>, %[[Y:[a-z0-9]+]]: tensor<1x8xbf16>)
// CHECK-DAG:     %[[X1:.*]] = linalg.generic {{.*}} ins(%[[X]] : tensor<1x8xf16>) outs(%{{.*}} : tensor<1x8xf32>)
// CHECK-DAG:     %[[Y1:.*]] = linalg.generic {{.*}} ins(%[[Y]] : tensor<1x8xbf16>) outs(%{{.*}} : tensor<1x8xf32>)
// CHECK-DAG:     %[[C:.*]] = arith.constant dense<1.500000e+00> : tensor<1x8xf32>
// CHECK-DAG:     %[[B:.*]] = arith.constant dense<{{\[\[}}5.000000e-01, 1.000000e+00, {{.*}}> : tensor<1x8xf32>
// CHECK:         %[[SUM:.*]] = linalg.add ins(%[[X1]], %[[C]] : tensor<1x8xf32>, tensor<1x8xf32>)
// CHECK:         %[[PRODUCT:.*]] = linalg.mul ins(%[[Y1]], %[[B]] : tensor<1x8xf32>, tensor<1x8xf32>)
// CHECK:         %[[WIDE:.*]] = linalg.generic {{.*}} ins(%[[SUM]] : tensor<1x8xf32>)
// CHECK-NOT:       arith.extf
// CHECK:         %[[SUM1:.*]] = linalg.generic {{.*}} ins(%[[SUM]] : tensor<1x8xf32>) outs(%{{.*}} : tensor<1x8xf16>)
// CHECK:           arith.truncf
// CHECK:         %[[PRODUCT1:.*]] = linalg.generic {{.*}} ins(%[[PRODUCT]] : tensor<1x8xf32>) outs(%{{.*}} : tensor<1x8xbf16>)
// CHECK:         return %[[SUM1]], %[[PRODUCT1]], %[[WIDE]], %[[X]]
func.func @net(%x: tensor<1x8xf16>, %y: tensor<1x8xbf16>) -> (tensor<1x8xf16>, tensor<1x8xbf16>, tensor<1x8xf32>, tensor<1x8xf16>) {
  %c = arith.constant dense<1.5> : tensor<1x8xf16>
  %b = arith.constant dense<[[0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]]> : tensor<1x8xbf16>
  %e = tensor.empty() : tensor<1x8xf16>
  %f = tensor.empty() : tensor<1x8xbf16>
  %g = tensor.empty() : tensor<1x8xf32>
  %0 = linalg.add ins(%x, %c : tensor<1x8xf16>, tensor<1x8xf16>) outs(%e : tensor<1x8xf16>) -> tensor<1x8xf16>
  %1 = linalg.mul ins(%y, %b : tensor<1x8xbf16>, tensor<1x8xbf16>) outs(%f : tensor<1x8xbf16>) -> tensor<1x8xbf16>
  %2 = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
    ins(%0 : tensor<1x8xf16>) outs(%g : tensor<1x8xf32>) {
  ^bb0(%a: f16, %o: f32):
    %k = arith.constant 2.0 : f16
    %m = arith.mulf %a, %k : f16
    %w = arith.extf %m : f16 to f32
    linalg.yield %w : f32
  } -> tensor<1x8xf32>
  return %0, %1, %2, %x : tensor<1x8xf16>, tensor<1x8xbf16>, tensor<1x8xf32>, tensor<1x8xf16>
}
