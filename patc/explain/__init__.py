"""What is known of a compiled model, for people: how each layer is computed, how long it takes and why, and what would
make it faster. `patc report` draws it as a page, prints it, and writes it as JSON."""
