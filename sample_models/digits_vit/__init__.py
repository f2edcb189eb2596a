"""A small vision transformer that reads handwritten digits.

Import `sample_models.digits_vit.sample` and call `load()`. This package imports nothing heavy, so
that a catalogue of samples can be listed without paying for torch.
"""
