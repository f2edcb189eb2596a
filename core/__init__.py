"""Quantscape's analysis package: layers, evidence, estimates, decisions and files.

It knows no screen (a test walks its imports). torch is imported only where a model runs, so
that reading an analysis and deciding on it needs NumPy alone.
"""

__version__ = "0.1.0"
