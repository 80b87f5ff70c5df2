"""Ways to drive weights into their constraint sets while a model trains: one file each."""
