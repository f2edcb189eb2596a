"""An Informer classifier on synthetic price series.

Import `sample_models.informer.sample` and call `load()`. This package imports nothing heavy, so
that a catalogue of samples can be listed without paying for torch.
"""
