// RUN: patc-opt --pattern-parallelize %s > %t.once
// RUN: patc-opt --pattern-parallelize %t.once | diff %t.once -
// RUN: filecheck --input-file=%t.once %s

// A function that has its own declarations of the run time uses them.

// CHECK-COUNT-1: func.func private @omp_get_thread_num() -> i32
// CHECK-NOT:     func.func private @omp_get_thread_num
func.func private @omp_get_thread_num() -> i32

func.func @parallel_once(%x: memref<4xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  scf.parallel (%i) = (%zero) to (%two) step (%one) {
    func.call @layer(%x, %i) : (memref<4xf32>, index) -> ()
    scf.reduce
  }
  return
}

func.func private @layer(memref<4xf32>, index)
