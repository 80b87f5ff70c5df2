"""What patc knows of each op of the dialect: one kind an op, one file a family."""
