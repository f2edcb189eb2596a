"""Verify: whether a map does on a real runtime what is projected of it."""
