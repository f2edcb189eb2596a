"""What a person asked for, and the map that follows by rules."""
