"""Tune: move it and see what flips."""
