"""What passes need of the IR: constants, element types, functions, windows."""
