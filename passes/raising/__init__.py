"""From linalg to layers."""
