"""A model and its data come in: bundled samples, the layer inventory, data flow."""
