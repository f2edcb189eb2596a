"""Which way up a line of text is: a public classifier in ONNX, and photographs drawn for it.

The model's file stays in its own package, `rapidocr`; `model.py` finds it.
"""
