"""A language model on real text: the next character of Python's own reference manual.

    python -m core analyze docs/examples/letters.py:load --out runs/letters

The text ships with Python (`pydoc_data.topics`). Training takes about half a minute and starts
from a seed. The task is a sequence: one class for each character of a window.
"""

from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LETTERS = " abcdefghijklmnopqrstuvwxyz.,()'\n"
WINDOW = 32
STEPS = 300


class Letters(nn.Module):
    """An embedding, an LSTM and a linear layer to the next character."""

    def __init__(self, width: int = 32, hidden: int = 96) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(LETTERS), width)
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, len(LETTERS))

    def forward(self, ids: Tensor) -> Tensor:
        """[N, T] -> logits [N, T, letters]."""
        return self.head(self.lstm(self.embedding(ids))[0])


def windows() -> Tensor:
    """Windows [M, WINDOW + 1] of character numbers, in the order of the text."""
    number = {letter: i for i, letter in enumerate(LETTERS)}
    text = "\n".join(topics[name] for name in sorted(topics)).lower()
    ids = torch.tensor([number[letter] for letter in text if letter in number])
    whole = len(ids) // (WINDOW + 1)
    return ids[: whole * (WINDOW + 1)].reshape(whole, WINDOW + 1)


def load() -> dict[str, Any]:
    """Trained on the first 80 % of the text; measured and held back on what follows."""
    torch.manual_seed(0)
    rows = windows()
    cut = int(0.8 * len(rows))
    train, later = rows[:cut], rows[cut:]
    model = Letters()
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    for _ in range(STEPS):
        batch = train[torch.randint(len(train), (128,))]
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    chosen, held = later[:600], later[600:1200]
    return {
        "name": "letters",
        "title": "Next character of the Python reference",
        "model": model,
        "calibration": train[:256, :-1],
        "evaluation": (chosen[:, :-1], chosen[:, 1:]),
        "holdout": (held[:, :-1], held[:, 1:]),
        "task": "sequence",
        "class_names": [repr(letter) for letter in LETTERS],
        "data_description": "Text of Python's reference manual, in windows of 32 characters.",
    }
