"""The MLIR dialects that patc defines in Python."""

if __name__ != "patc.dialects":
    raise ImportError(f"import this package as 'patc.dialects', not as '{__name__}'")
