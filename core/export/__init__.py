"""Files for others: precision maps, tables and stored tensors."""
