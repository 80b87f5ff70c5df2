// RUN: patc-opt --pattern-parallelize --split-input-file %s | filecheck %s

// One region for both loops; each thread takes its turns, and all wait between the loops.

// CHECK-LABEL: func.func @merges_loops
// CHECK-SAME:    %[[X:.*]]: memref<4xf32>
// CHECK-DAG:     %[[TURNS:.*]] = arith.constant 3 : index
// CHECK:         %[[TEAM:.*]] = arith.index_cast %[[TURNS]] : index to i32
// CHECK:         omp.parallel num_threads(%[[TEAM]] : i32) {
// CHECK:           %[[NUMBER:.*]] = func.call @omp_get_thread_num()
// CHECK:           %[[COUNT:.*]] = func.call @omp_get_num_threads()
// CHECK:           %[[THREAD:.*]] = arith.index_cast %[[NUMBER]]
// CHECK:           %[[THREADS:.*]] = arith.index_cast %[[COUNT]]
// CHECK:           scf.for %[[I:.*]] = %[[THREAD]] to %[[TURNS]] step %[[THREADS]] {
// CHECK:             func.call @first(%[[X]], %[[I]])
// CHECK:           omp.barrier
// CHECK:           scf.for %[[J:.*]] = %[[THREAD]] to %[[TURNS]] step %[[THREADS]] {
// CHECK:             func.call @second(%[[X]], %[[J]])
// CHECK-NOT:       omp.parallel
// CHECK-NOT:       scf.parallel
// CHECK:           omp.terminator
// CHECK:         return
func.func @merges_loops(%x: memref<4xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %three = arith.constant 3 : index
  scf.parallel (%i) = (%zero) to (%three) step (%one) {
    func.call @first(%x, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  scf.parallel (%i) = (%zero) to (%three) step (%one) {
    func.call @second(%x, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  return
}
func.func private @first(memref<4xf32>, index)
func.func private @second(memref<4xf32>, index)

// -----

// What is no loop runs once, on thread 0, between barriers.

// CHECK-LABEL: func.func @sequential_ops_on_thread_0
// CHECK-SAME:    %[[X:.*]]: memref<4xf32>, %[[Y:.*]]: memref<4xf32>
// CHECK:         call @before(%[[X]])
// CHECK:         omp.parallel
// CHECK:           %[[NUMBER:.*]] = func.call @omp_get_thread_num()
// CHECK:           %[[THREAD:.*]] = arith.index_cast %[[NUMBER]]
// CHECK:           func.call @layer
// CHECK:           omp.barrier
// CHECK:           %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:           %[[IS_ZERO:.*]] = arith.cmpi eq, %[[THREAD]], %[[ZERO]]
// CHECK:           scf.if %[[IS_ZERO]] {
// CHECK-NEXT:        memref.copy %[[X]], %[[Y]]
// CHECK-NEXT:      }
// CHECK-NEXT:      omp.barrier
// CHECK:           func.call @layer
func.func @sequential_ops_on_thread_0(%x: memref<4xf32>, %y: memref<4xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  func.call @before(%x) : (memref<4xf32>) -> ()
  scf.parallel (%i) = (%zero) to (%two) step (%one) {
    func.call @layer(%x, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  memref.copy %x, %y : memref<4xf32> to memref<4xf32>
  scf.parallel (%i) = (%zero) to (%two) step (%one) {
    func.call @layer(%y, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  return
}
func.func private @before(memref<4xf32>)
func.func private @layer(memref<4xf32>, index)

// -----

// No thread waits for a time stamp.

// CHECK-LABEL: func.func @time_stamps
// CHECK:         omp.parallel
// CHECK:           func.call @layer
// CHECK:           omp.barrier
// CHECK:           scf.if
// CHECK:             %[[NOW:.*]] = func.call @patc_timestamp()
// CHECK-NEXT:        memref.store %[[NOW]]
// CHECK-NEXT:      }
// CHECK-NOT:       omp.barrier
// CHECK:           func.call @layer
func.func @time_stamps(%x: memref<4xf32>, %times: memref<4xi64>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  scf.parallel (%i) = (%zero) to (%two) step (%one) {
    func.call @layer(%x, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  %now = func.call @patc_timestamp() : () -> i64
  memref.store %now, %times[%one] : memref<4xi64>
  scf.parallel (%i) = (%zero) to (%two) step (%one) {
    func.call @layer(%x, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  return
}
func.func private @layer(memref<4xf32>, index)
func.func private @patc_timestamp() -> i64

// -----

// Addresses are computed once, before the region.

// CHECK-LABEL: func.func @addresses_before_the_region
// CHECK:         %[[PART:.*]] = memref.view
// CHECK:         omp.parallel
// CHECK:           func.call @layer
// CHECK:           func.call @layer(%[[PART]],
func.func @addresses_before_the_region(%x: memref<4xf32>, %arena: memref<64xi8>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  scf.parallel (%i) = (%zero) to (%two) step (%one) {
    func.call @layer(%x, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  %start = arith.constant 16 : index
  %part = memref.view %arena[%start][] : memref<64xi8> to memref<4xf32>
  scf.parallel (%i) = (%zero) to (%two) step (%one) {
    func.call @layer(%part, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  return
}
func.func private @layer(memref<4xf32>, index)
