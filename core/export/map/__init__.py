"""One map as a file: JSON, CSV, session, tensors, and whether it may be given to others."""
