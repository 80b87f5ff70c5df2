"""Loop nests of CPUs."""
