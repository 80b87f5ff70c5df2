"""The passes, in pipeline order; importing this package imports none of them."""

if __name__ != "patc.passes":
    raise ImportError(f"import this package as 'patc.passes', not as '{__name__}'")
