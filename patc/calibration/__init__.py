"""What the cost models have to know of this machine: measured, kept, and checked against layers."""
