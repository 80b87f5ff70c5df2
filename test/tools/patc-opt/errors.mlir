// RUN: not patc-opt --pattern-reorderr %s 2>&1 | filecheck %s --check-prefix=OWN
// RUN: not patc-opt --canonicalise %s 2>&1 | filecheck %s --check-prefix=UPSTREAM
// RUN: not patc-opt --split-input-fle %s 2>&1 | filecheck %s --check-prefix=OPTION
// RUN: not patc-opt --pattern-schedule="thread=2" %s 2>&1 | filecheck %s --check-prefix=PASS-OPTION
// RUN: not patc-opt --pattern-schedule="threads=0" %s 2>&1 | filecheck %s --check-prefix=RANGE
// RUN: not patc-opt --canonicalize="max-iterations=many" %s 2>&1 | filecheck %s --check-prefix=UPSTREAM-RANGE
// RUN: not patc-opt --pass-pipeline='builtin.module(cse' %s 2>&1 | filecheck %s --check-prefix=SYNTAX
// RUN: not patc-opt --pass-pipeline='func.func(pattern-raise)' %s 2>&1 | filecheck %s --check-prefix=ANCHOR
// RUN: not patc-opt --cse --pass-pipeline=cse %s 2>&1 | filecheck %s --check-prefix=BOTH
// RUN: not patc-opt %S/none.mlir 2>&1 | filecheck %s --check-prefix=MISSING
// RUN: not patc-opt %S 2>&1 | filecheck %s --check-prefix=FOLDER
// RUN: not patc-opt %s -o %t.none/out.mlir 2>&1 | filecheck %s --check-prefix=UNWRITABLE
// RUN: not patc-opt --mlir-elide-elementsattrs-if-larger few %s 2>&1 | filecheck %s --check-prefix=NUMBER
// RUN: not patc-opt --mlir-elide-elementsattrs-if-larger 99999999999999999999 %s 2>&1 | filecheck %s --check-prefix=SIZE
// RUN: not patc-opt --one-shot-bufferize %s 2>&1 | filecheck %s --check-prefix=FAILED

// Every error is one line.

// OWN: patc-opt: error: unknown pass 'pattern-reorderr'; did you mean 'pattern-reorder'?
// UPSTREAM: patc-opt: error: unknown pass 'canonicalise'; did you mean 'canonicalize'?
// OPTION: patc-opt: error: unknown pass 'split-input-fle'; did you mean 'split-input-file'?
// PASS-OPTION: patc-opt: error: pass 'pattern-schedule' has no option 'thread'; did you mean 'threads'?
// RANGE: patc-opt: error: pass 'pattern-schedule' expected option 'threads' to be an integer from 1 to 1024, got 0
// UPSTREAM-RANGE: patc-opt: error: pass 'canonicalize' expected legal options, got 'max-iterations=many' ({{.*}}'many' value invalid
// SYNTAX: patc-opt: error: expected ')' at column 19 of the pipeline 'builtin.module(cse', found its end
// ANCHOR: patc-opt: error: pass 'pattern-raise' expected to run on builtin.module, got func.func
// BOTH: patc-opt: error: expected either --pass-pipeline or passes as flags, got both (--cse)
// MISSING: {{.*}}none.mlir: error: expected an MLIR file, found none
// FOLDER: {{.*}}patc-opt: error: expected an MLIR file, found a folder
// UNWRITABLE: {{.*}}out.mlir: error: expected a file in a folder that exists
// NUMBER: patc-opt: error: argument --mlir-elide-elementsattrs-if-larger: expected a number of elements, got 'few'
// SIZE: patc-opt: error: argument --mlir-elide-elementsattrs-if-larger: expected a number of elements, got '99999999999999999999'

func.func @not_bufferizable(%x: tensor<4xf32>) -> tensor<4xf32> {
  // FAILED: {{.*}}errors.mlir:[[# @LINE + 1]]:8: error: op was not bufferized (in pass 'one-shot-bufferize')
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<4xf32>) -> tensor<4xf32>
  return %y : tensor<4xf32>
}
