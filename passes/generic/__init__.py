"""Any linalg on tensors as loops over flat memory."""
