"""optimum-quanto."""
