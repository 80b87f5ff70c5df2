"""Where numbers go wrong: the first layer, the first pass, and the smallest module that still shows it."""
