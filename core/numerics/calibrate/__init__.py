"""Ranges of activations: what is collected, and where a calibrator lets them end."""
