"""An analysis: what it is, how it is made, and the folder that it is kept in."""
