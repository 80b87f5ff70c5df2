"""Backends: one for each kind of machine code, from the passes to the model that runs.

Nothing here loads MLIR before it compiles, so that `patc.load` needs none.
"""
