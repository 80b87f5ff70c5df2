"""Compiled models: load, call, profile, save. Nothing here needs torch or MLIR."""
