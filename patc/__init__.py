"""patc compiles pattern-pruned convolutional networks."""

__version__ = "0.1.0"
