// RUN: patc-opt --split-input-file --verify-diagnostics %s
// RUN: patc-opt --split-input-file --verify-diagnostics < %s

// Expected diagnostics of the parser, of verifiers and of passes; every way to give their place.

func.func @parser() -> i32 {
  // expected-error @below {{use of undeclared SSA value name}}
  return %0 : i32
}

// -----

func.func @parser_with_note(%x: f32) -> i32 { // expected-note {{prior use here}}
  return %x : i32 // expected-error {{use of value '%x' expects different type than prior uses}}
}

// -----

func.func @verifier(%x: f32) -> i32 {
  return %x : f32
  // expected-error @above {{type of return operand 0 ('f32') doesn't match function result type ('i32')}}
}

// -----

// expected-error @+2 {{'pattern.activate' op expected input and result of one shape, got [4], [5]}}
func.func @python_verifier(%x: tensor<4xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<4xf32>) -> tensor<5xf32>
  return
}

// -----

func.func @regex(%x: tensor<4xf32>) {
  %y = "pattern.activate"(%x) {activation = "relu"} : (tensor<4xf32>) -> tensor<5xf32>
  // expected-error-re @-1 {{expected input and result of {{one|equal}} shape, got [{{[0-9]+}}], [5]}}
  return
}

// -----

// Comments with expectations do not count as the line below.
// expected-note @below {{see existing symbol definition here}}
// expected-error @+2 {{redefinition of symbol named 'twice'}}
func.func private @twice()
func.func private @twice()

// -----

// expected-error @unknown {{expected a safetensors file with the parameters, found no such file}}
module attributes {pattern.parameters = "missing.safetensors"} {}
