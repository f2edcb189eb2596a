"""Export: a map as a file, and back."""
