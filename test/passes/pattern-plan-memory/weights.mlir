// RUN: patc-opt --pattern-plan-memory %s | filecheck %s

// All arrays lie in one blob, each on a cache line; one that is read twice lies there once.

// CHECK-NOT:   memref.global
// CHECK-LABEL: func.func @reads_weights
// CHECK-SAME:    %[[ARENA:[a-z0-9]+]]: memref<64xi8>, %[[WEIGHTS:[a-z0-9]+]]: memref<192xi8>)
// CHECK-NOT:     memref.get_global
// CHECK:         %[[START_FLOATS:.*]] = arith.constant 0 : index
// CHECK:         memref.view %[[WEIGHTS]][%[[START_FLOATS]]][] : memref<192xi8> to memref<20xf32>
// CHECK:         %[[START_SHORTS:.*]] = arith.constant 128 : index
// CHECK:         memref.view %[[WEIGHTS]][%[[START_SHORTS]]][] : memref<192xi8> to memref<3xi16>
// CHECK:         %[[AGAIN:.*]] = arith.constant 0 : index
// CHECK:         memref.view %[[WEIGHTS]][%[[AGAIN]]][] : memref<192xi8> to memref<20xf32>
memref.global "private" constant @floats : memref<20xf32> = dense<1.5>
memref.global "private" constant @shorts : memref<3xi16> = dense<[1, 2, 3]>
memref.global "private" constant @unused : memref<64xi32> = dense<7>

func.func @reads_weights(%y: memref<20xf32>, %z: memref<3xi16>) {
  %floats = memref.get_global @floats : memref<20xf32>
  memref.copy %floats, %y : memref<20xf32> to memref<20xf32>
  %shorts = memref.get_global @shorts : memref<3xi16>
  memref.copy %shorts, %z : memref<3xi16> to memref<3xi16>
  %again = memref.get_global @floats : memref<20xf32>
  memref.copy %again, %y : memref<20xf32> to memref<20xf32>
  return
}
