"""Method: what the numbers mean."""
