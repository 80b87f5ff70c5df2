// RUN: patc-opt --canonicalize --cse --mlir-print-ir-after-all %s -o /dev/null 2>&1 | filecheck %s --check-prefix=ALL
// RUN: patc-opt --canonicalize --cse --mlir-print-ir-after=cse %s -o /dev/null 2>&1 | filecheck %s --check-prefix=ONE
// RUN: patc-opt --canonicalize --mlir-timing %s -o /dev/null 2>&1 | filecheck %s --check-prefix=TIMING
// RUN: patc-opt --mlir-print-debuginfo %s | filecheck %s --check-prefix=DEBUG
// RUN: patc-opt --mlir-elide-elementsattrs-if-larger 4 %s | filecheck %s --check-prefix=ELIDED
// RUN: not patc-opt --cse --mlir-print-ir-after=csee %s 2>&1 | filecheck %s --check-prefix=UNKNOWN

// ALL: // -----// IR Dump After canonicalize //----- //
// ALL: func.func @constant
// ALL: // -----// IR Dump After cse //----- //
// ALL: func.func @constant

// ONE-NOT: After canonicalize
// ONE: // -----// IR Dump After cse //----- //

// TIMING: Execution time report
// TIMING: {{[0-9.]+}} ({{.*}}%)  canonicalize
// TIMING: (100.0%)  Total

// UNKNOWN: patc-opt: error: expected a pass that runs to print after, got 'csee'; did you mean 'cse'?

func.func @constant() -> tensor<8xf32> {
  // DEBUG: loc("{{.*}}print-ir.mlir":[[# @LINE + 2]]:8)
  // ELIDED: dense_resource<__elided__>
  %0 = arith.constant dense<[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]> : tensor<8xf32>
  return %0 : tensor<8xf32>
}
