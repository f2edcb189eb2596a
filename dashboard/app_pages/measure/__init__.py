"""Measure: what each layer of a model does, and how long that takes."""
