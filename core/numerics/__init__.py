"""What numbers are: precisions, schemes, the kernel table, ranges, grids and rounding."""
