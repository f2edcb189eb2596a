"""The best map within budgets: search, bounds and frontiers."""
