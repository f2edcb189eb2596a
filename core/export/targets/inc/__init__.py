"""Intel Neural Compressor."""
