"""Algorithms of CPUs."""
