"""What a session remembers, its controls, and what is asked of core for it."""
