"""Measuring every layer alone: runs, their outputs, memory, workers and the cache."""
