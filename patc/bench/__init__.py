"""Measuring compiled models: beside PyTorch and other run times, and against what the machine can do."""
