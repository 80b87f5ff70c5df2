"""Command-line tools: `patc` and `patc-opt`."""

if __name__ != "patc.tools":
    raise ImportError(f"import this package as 'patc.tools', not as '{__name__}'")
