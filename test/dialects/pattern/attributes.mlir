// RUN: patc-opt %s | patc-opt | filecheck %s

// Every attribute survives printing and parsing, with all its values.

// CHECK: module attributes
module attributes {
  // CHECK-DAG: pattern.a = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54, 216, 432>>
  pattern.a = #pattern.fkw<array<i64: 3, 3>, array<i64: 27, 54, 216, 432>>,
  // CHECK-DAG: pattern.deep = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 480>>
  pattern.deep = #pattern.fkw<array<i64: 1, 1, 9>, array<i64: 27, 480>>,
  // CHECK-DAG: pattern.b = #pattern.clamp<-1.000000e+00 : f32, 6.000000e+00 : f32>
  pattern.b = #pattern.clamp<-1.0 : f32, 6.0 : f32>,
  // CHECK-DAG: pattern.c = #pattern.layout<{fill = "lowest", halo = array<i64: 1, 0, 2, 0>, phases = 2 : i64, plane = 64 : i64, row = 8 : i64}>
  pattern.c = #pattern.layout<{fill = "lowest", halo = array<i64: 1, 0, 2, 0>, phases = 2 : i64, plane = 64 : i64,
                               row = 8 : i64}>,
  // CHECK-DAG: pattern.d = #pattern.schedule<{algorithm = "pattern-direct", columns = 16 : i64, filters = 1 : i64, lanes = 16 : i64, rows = 4 : i64, split = "filters", threads = 2 : i64}>
  pattern.d = #pattern.schedule<{algorithm = "pattern-direct", columns = 16 : i64, filters = 1 : i64,
                                 lanes = 16 : i64, rows = 4 : i64, split = "filters", threads = 2 : i64}>
} {}
