// RUN: patc-opt --pattern-layout=target=x86-64-v4 --pattern-schedule='target=x86-64-v4 threads=1' --pattern-specialize --split-input-file --verify-diagnostics %s | filecheck %s
// RUN: patc-opt --pattern-layout=target=x86-64-v4 --pattern-schedule='target=x86-64-v4 threads=2' --pattern-specialize --split-input-file %s | filecheck %s --check-prefix=THREADS

// A call says how many images it has: the last argument. Where the row tiles of each thread end stands in a table, of no
// image, of one, and so on; the caller's memory is read and written.

// CHECK:         memref.global "private" constant @[[ENDS:.*]] : memref<20xi32> = dense<[0, 2, 0, 2, 0, 2, 0, 2, 0, 4, 0, 2, 0, 6, 0, 2, 0, 8, 0, 2]>
// CHECK-LABEL: func.func @row_tiles_of_the_images_of_a_call
// CHECK-SAME:    (%[[X:.*]]: memref<1024xf32>, %[[Y:.*]]: memref<1024xf32>, %{{.*}}: memref<2xi64>, %[[COUNT:.*]]: index)
// CHECK:         %[[ROW:.*]] = arith.muli %[[COUNT]], %c4
// CHECK:         %[[TABLE:.*]] = memref.get_global @[[ENDS]]
// CHECK:         memref.load %[[TABLE]][%[[ROW]]]
// CHECK:         call @elementwise_0
// CHECK-NOT:     memref.copy

// THREADS-LABEL: func.func @row_tiles_of_the_images_of_a_call
// THREADS-SAME:    %[[COUNT:[a-z0-9]*]]: index)
// THREADS:         arith.muli %[[COUNT]]
// THREADS:         scf.parallel
// THREADS:           memref.load
// THREADS:           call @elementwise_0
module attributes {pattern.images = 4 : i64} {
  func.func @row_tiles_of_the_images_of_a_call(%x: tensor<4x2x8x16xf32>) -> tensor<4x2x8x16xf32> {
    %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<4x2x8x16xf32>) -> tensor<4x2x8x16xf32>
    return %y : tensor<4x2x8x16xf32>
  }
}

// -----

// Groups of rows may be more than those of the call: they are read and written in memory of the function's own.

// CHECK-LABEL: func.func @groups_of_rows
// CHECK-SAME:    (%[[X:.*]]: memref<64xf32>, %[[Y:.*]]: memref<16xf32>, %{{.*}}: memref<2xi64>, %[[COUNT:.*]]: index)
// CHECK-DAG:     %[[READ:.*]] = arith.muli %[[COUNT]], %c8
// CHECK-DAG:     %[[WRITTEN:.*]] = arith.muli %[[COUNT]], %c2
// CHECK:         %[[OWN:.*]] = memref.alloc
// CHECK-DAG:     %[[FROM:.*]] = memref.reinterpret_cast %[[X]] to offset: [0], sizes: [%[[READ]]], strides: [1]
// CHECK-DAG:     %[[TO:.*]] = memref.reinterpret_cast %[[OWN]] to offset: [0], sizes: [%[[READ]]], strides: [1]
// CHECK:         memref.copy %[[FROM]], %[[TO]]
// CHECK:         call @gem
// CHECK:         %[[RESULT:.*]] = memref.reinterpret_cast %[[Y]] to offset: [0], sizes: [%[[WRITTEN]]], strides: [1]
// CHECK:         memref.copy %{{.*}}, %[[RESULT]]
module attributes {pattern.images = 8 : i64} {
  func.func @groups_of_rows(%x: tensor<8x8xf32>) -> tensor<8x2xf32> {
    %w = arith.constant dense<1.0> : tensor<2x8xf32>
    %y = "pattern.linear"(%x, %w) {activation = "none", operandSegmentSizes = array<i32: 1, 1, 0, 0>}
      : (tensor<8x8xf32>, tensor<2x8xf32>) -> tensor<8x2xf32>
    return %y : tensor<8x2xf32>
  }
}

// -----

// Images that are not one behind the other: there are no loops for some of them.

// CHECK-LABEL: func.func @images_in_columns
// CHECK-SAME:    (%{{.*}}: memref<24xf32>, %{{.*}}: memref<24xf32>, %{{.*}}: memref<2xi64>)
module attributes {pattern.images = 4 : i64} {
  func.func @images_in_columns(%x: tensor<6x4xf32>) -> tensor<6x4xf32> {
    // expected-remark @below {{images are computed in blocks of 4, whatever their number: pattern.activate does not have them one behind the other}}
    %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<6x4xf32>) -> tensor<6x4xf32>
    return %y : tensor<6x4xf32>
  }
}

// -----

// Loops over words go through all images.

// CHECK-LABEL: func.func @words
// CHECK-SAME:    (%{{.*}}: memref<2048xf32>, %{{.*}}: memref<2048xf32>, %{{.*}}: memref<3xi64>)
module attributes {pattern.images = 4 : i64} {
  func.func @words(%x: tensor<4x4x8x16xf32>) -> tensor<4x4x8x16xf32> {
    // expected-remark @below {{images are computed in blocks of 4, whatever their number: pattern.relayout has no loop over them}}
    %q = "pattern.relayout"(%x) : (tensor<4x4x8x16xf32>) -> tensor<4x4x8x16x!pattern.quantised<ui8, 0.02 : f32, 128 : i64>>
    %y = "pattern.relayout"(%q) : (tensor<4x4x8x16x!pattern.quantised<ui8, 0.02 : f32, 128 : i64>>) -> tensor<4x4x8x16xf32>
    return %y : tensor<4x4x8x16xf32>
  }
}
