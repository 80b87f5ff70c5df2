"""How layers are computed: one algorithm a file, with what it costs and what writes its loops."""
