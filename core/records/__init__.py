"""What was found by running a model, one JSON file per finding."""
