"""Images of handwritten digits and what the samples trained on them share.

This folder is no sample of its own: `digits_vit` and `digits_resnet` are.
"""
