"""What a map comes to: totals, differences, comparisons and curves."""
