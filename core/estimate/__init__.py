"""What a precision map costs: bytes, milliseconds and accuracy, each with its kind and range."""
