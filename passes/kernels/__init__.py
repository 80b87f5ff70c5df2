"""Loop nests that `pattern-specialize` emits, one file a kind of layer."""
