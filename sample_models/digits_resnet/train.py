"""Rebuild the sample from a seed, or evaluate the shipped files.

python -m sample_models.digits_resnet.train [--seed 0] [--epochs N] [--out DIR]
python -m sample_models.digits_resnet.train --evaluate
"""

from pathlib import Path

from sample_models.digits.training import Recipe, run
from sample_models.digits_resnet.model import DigitsResnet

RECIPE = Recipe(epochs=30, learning_rate=3e-3, weight_decay=0.05)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    return run(DigitsResnet, RECIPE, Path(__file__).parent, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
