"""From controls to a map: policy, scoring, strategies, statistics and differences."""
