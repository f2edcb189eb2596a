"""How sure a decision is: other samples, other scorers."""
