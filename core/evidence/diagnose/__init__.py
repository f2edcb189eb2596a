"""Why a layer is sensitive: its weights, activations, curvature and remedies."""
