"""Running a module with chosen layers rounded, operation by operation."""
