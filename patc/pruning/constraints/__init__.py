"""What schemes ask of single weights, in torch: one file a kind of constraint set."""
