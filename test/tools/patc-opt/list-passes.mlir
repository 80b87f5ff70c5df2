// RUN: patc-opt --list-passes | filecheck %s
// RUN: patc-opt --help | filecheck %s --check-prefix=HELP

// CHECK: pattern-fold-batch-norm
// CHECK: pattern-raise
// CHECK: pattern-encode
// CHECK-NEXT: {{^    [A-Z].*[.]$}}
// CHECK-NEXT: {{^    max-patterns: .* [(]an integer of 1 or more, 16 by default[)]$}}
// CHECK: pattern-schedule
// CHECK: threads: {{.*}} (an integer from 1 to 1024, 1 by default)
// CHECK: convert-pattern-to-linalg

// HELP: usage: patc-opt [options] [--<pass>[=options]]... [FILE]
// HELP: --split-input-file
// HELP: pattern-schedule
