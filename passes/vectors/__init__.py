"""Vectors as the machine has them."""
