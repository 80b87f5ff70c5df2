"""Algorithms of GPUs."""
