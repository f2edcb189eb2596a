"""Apple Core ML."""
