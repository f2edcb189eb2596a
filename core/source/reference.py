"""What a reference says of its source, without loading it."""

from __future__ import annotations

from core.source import onnx_file, samples


def is_data(reference: str) -> bool:
    """Whether what `reference` names runs no code of a person: a bundled sample, or an ONNX file."""
    return reference.startswith(samples.PREFIX) or onnx_file.is_reference(reference)
