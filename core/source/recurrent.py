"""LSTM, GRU and RNN step by step, so that a mode sees the products and gates inside.

PyTorch runs a whole recurrent layer as one call. These functions take the same arguments and
compute the same formulas (PyTorch's documentation of `nn.LSTM`, `nn.GRU` and `nn.RNN`) with
`linear` and elementwise functions. Packed sequences are padded ones whose batch shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Sequence[Tensor], bool], State]
"""(input part of the gates, state, weights, biases?) -> next state, whose first item is output."""


def _hidden_part(hidden: Tensor, weights: Sequence[Tensor], biases: bool) -> Tensor:
    return F.linear(hidden, weights[1], weights[3] if biases else None)


def _lstm_step(given: Tensor, state: State, weights: Sequence[Tensor], biases: bool) -> State:
    hidden, cell = state
    gates = given + _hidden_part(hidden, weights, biases)
    i, f, g, o = gates.chunk(4, dim=1)
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    hidden = torch.sigmoid(o) * torch.tanh(cell)
    projection = weights[4:5] if biases else weights[2:3]
    return (F.linear(hidden, projection[0]) if projection else hidden), cell


def _gru_step(given: Tensor, state: State, weights: Sequence[Tensor], biases: bool) -> State:
    (hidden,) = state
    reset_x, update_x, new_x = given.chunk(3, dim=1)
    reset_h, update_h, new_h = _hidden_part(hidden, weights, biases).chunk(3, dim=1)
    reset = torch.sigmoid(reset_x + reset_h)
    update = torch.sigmoid(update_x + update_h)
    new = torch.tanh(new_x + reset * new_h)
    return ((1 - update) * new + update * hidden,)


def _rnn_step(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(given: Tensor, state: State, weights: Sequence[Tensor], biases: bool) -> State:
        return (activation(given + _hidden_part(state[0], weights, biases)),)

    return step


def _rows(tensor: Tensor, count: int) -> Tensor:
    """The first rows of a tensor, itself where these are all."""
    return tensor if tensor.shape[0] == count else tensor[:count]


def _direction(
    step: Step, steps: list[Tensor], start: State, weights: Sequence[Tensor], biases: bool
) -> tuple[list[Tensor], State]:
    """Outputs of each step and the last state of each sample, in the order of `steps`.

    The batch of a step may be smaller (its first rows go on) or larger (new rows join) than
    that of the one before.
    """
    sizes = [x.shape[0] for x in steps]  # an exporter takes what `len` gives for a constant
    # One product for the whole sequence, with rows of zeros where a sample has ended.
    if any(n != sizes[0] for n in sizes):
        steps = [F.pad(x, (0, 0, 0, max(sizes) - n)) for x, n in zip(steps, sizes, strict=True)]
    every = F.linear(torch.stack(steps), weights[0], weights[2] if biases else None)
    parts = [_rows(part, n) for part, n in zip(every.unbind(0), sizes, strict=True)]
    state = tuple(_rows(part, sizes[0]) for part in start)
    ended: list[State] = []
    outputs = []
    for n, given in zip(sizes, parts, strict=True):
        rows = state[0].shape[0]
        if n < rows:
            ended.append(tuple(part[n:] for part in state))
            state = tuple(part[:n] for part in state)
        elif n > rows:
            fresh = zip(state, start, strict=True)
            state = tuple(torch.cat([part, first[rows:n]]) for part, first in fresh)
        state = step(given, state, weights, biases)
        outputs.append(state[0])
    last = zip(state, *reversed(ended), strict=True)
    return outputs, tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in last)


def _layers(
    step: Step, steps: list[Tensor], start: State, flat: Sequence[Tensor], biases: bool,
    layers: int, dropout: float, train: bool, both: bool,
) -> tuple[list[Tensor], State]:  # fmt: skip
    directions = 2 if both else 1
    per = len(flat) // (layers * directions)
    finals: list[State] = []
    for layer in range(layers):
        found: list[list[Tensor]] = []
        for direction in range(directions):
            k = layer * directions + direction
            weights = flat[k * per : (k + 1) * per]
            begin = tuple(part[k] for part in start)
            order = steps[::-1] if direction else steps
            outputs, last = _direction(step, order, begin, weights, biases)
            found.append(outputs[::-1] if direction else outputs)
            finals.append(last)
        steps = found[0] if not both else [torch.cat(p, 1) for p in zip(*found, strict=True)]
        if dropout and train and layer < layers - 1:
            steps = [F.dropout(x, dropout, training=True) for x in steps]
    return steps, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def _recurrent(step: Step) -> Callable[..., tuple[Tensor, ...]]:
    """A function with the two signatures of `torch.lstm` and its kin."""

    def run(given: Tensor, second: Any, third: Any, *rest: Any) -> tuple[Tensor, ...]:
        if isinstance(third, Tensor) or (
            isinstance(third, tuple | list) and isinstance(second, Tensor) and second.ndim == 1
        ):
            flat, biases, layers, dropout, train, both = rest
            steps = list(given.split(second.tolist()))  # type: ignore[no-untyped-call]
            start = third if isinstance(third, tuple | list) else (third,)
            outputs, last = _layers(
                step, steps, tuple(start), flat, biases, layers, dropout, train, both
            )
            return torch.cat(outputs), *last
        biases, layers, dropout, train, both, batch_first = rest
        start = second if isinstance(second, tuple | list) else (second,)
        steps = list(given.unbind(1 if batch_first else 0))
        outputs, last = _layers(
            step, steps, tuple(start), third, biases, layers, dropout, train, both
        )
        return torch.stack(outputs, 1 if batch_first else 0), *last

    return run


def projects(given: Tensor, second: Any, third: Any, *rest: Any) -> bool:
    """Whether a call of `torch.lstm` with these arguments projects its states."""
    whole = isinstance(second, tuple | list)  # not a packed sequence
    flat, biases = (third, rest[0]) if whole else (rest[0], rest[1])
    layers, both = (rest[1], rest[4]) if whole else (rest[2], rest[5])
    return bool(len(flat) // (layers * (2 if both else 1)) > (4 if biases else 2))


def _cell(step: Step) -> Callable[..., Any]:
    def run(given: Tensor, state: Any, w_ih: Tensor, w_hh: Tensor,
            b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Any:  # fmt: skip
        start = tuple(state) if isinstance(state, tuple | list) else (state,)
        biases = b_ih is not None and b_hh is not None
        weights = [w for w in (w_ih, w_hh, b_ih, b_hh) if w is not None]
        after = step(F.linear(given, w_ih, b_ih), start, weights, biases)
        return after if len(after) > 1 else after[0]

    return run


STEP_BY_STEP: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.lstm: _recurrent(_lstm_step),
    torch.gru: _recurrent(_gru_step),
    torch.rnn_tanh: _recurrent(_rnn_step(torch.tanh)),
    torch.rnn_relu: _recurrent(_rnn_step(torch.relu)),
    torch.lstm_cell: _cell(_lstm_step),
    torch.gru_cell: _cell(_gru_step),
    torch.rnn_tanh_cell: _cell(_rnn_step(torch.tanh)),
    torch.rnn_relu_cell: _cell(_rnn_step(torch.relu)),
}
"""PyTorch's function -> the same in steps."""
