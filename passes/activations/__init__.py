"""Activations: a formula each, which kernels, linalg and the recognition of activations in linalg share."""
