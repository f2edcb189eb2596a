"""What runs a model under an assignment of precisions to its layers."""
