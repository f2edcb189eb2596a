"""Overview: what this model is, and whether INT8 is a good idea."""
