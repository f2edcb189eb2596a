"""Model Explorer: scores, and precisions, as node data."""
