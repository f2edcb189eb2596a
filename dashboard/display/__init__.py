"""How figures, layers, losses and strategies look: text, colours, marks, and errors."""
