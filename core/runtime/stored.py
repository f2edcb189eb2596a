"""The bytes of a built file against the size that was planned."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from core.runtime.build import Built

OVERHEAD_BYTES = 1_000
OVERHEAD_SHARE = 0.01
"""What shapes, small constants and merged tensors may come to: the larger of the two."""
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class StoredSize:
    """Bytes of a file: `tensors` in it, as `planned`, and what its graph takes besides. `largest`
    are its largest tensors (name, bytes).
    """

    planned: int
    tensors: int
    file: int
    largest: tuple[tuple[str, int], ...]

    @property
    def as_planned(self) -> bool:
        """Whether the tensors take what was planned, within the overhead of a graph."""
        apart = abs(self.tensors - self.planned)
        return apart <= max(OVERHEAD_BYTES, OVERHEAD_SHARE * self.planned)

    def in_words(self) -> str:
        """Both sizes, and where they differ what the file holds most of."""
        said = (
            f"Its tensors take {self.tensors:,} bytes, {self.planned:,} were planned; the graph takes "
            f"{self.file - self.tensors:,} more."
        )
        if self.as_planned:
            return said
        named = ", ".join(f"{name} {size:,}" for name, size in self.largest)
        return (
            f"{said} They differ by {self.tensors - self.planned:+,} bytes: layers that are not built "
            "as asked, tensors that the exporter keeps twice, merges, or makes of the model's code. "
            f"Largest: {named}."
        )


def stored_size(built: Built, planned: int) -> StoredSize:
    """The size of `built`, for which `planned` bytes of tensors were promised."""
    sizes = sorted(
        ((c.name, onnx.numpy_helper.to_array(c).nbytes) for c in built.model.graph.initializer),
        key=lambda one: -one[1],
    )
    tensors = sum(size for _, size in sizes)
    return StoredSize(planned, tensors, built.file_bytes, tuple(sizes[:MOST_NAMED]))
