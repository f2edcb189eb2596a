"""What numbers are: precisions, schemes, the kernel table, ranges, grids, rounding and storage."""
