"""Files as persons write them when something is off: each is one small model with one oddity."""

from __future__ import annotations

from pathlib import Path

TEXT = '''
import logging, os, signal, sys, threading, warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

CALLS = 0


class Odd(BaseException):
    """No Exception."""


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        sys.exit(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        global CALLS
        CALLS += 1
        {forward}
        return self.two(torch.relu(self.one(x)))


class NoEval(Net):
    def train(self, mode=True):
        raise RuntimeError("only training")


def metric(outputs, targets):
    {metric}
    return float((outputs.argmax(1) == targets).float().mean())


def batches():
    yield torch.randn(4, 4)
    {batches}


{top}


def load():
    torch.manual_seed(0)
    model, x = Net(), torch.randn(40, 4)
    spec = {{
        "model": model, "calibration": torch.randn(20, 4),
        "evaluation": (x, torch.arange(40) % 3), "task": "classification",
    }}
    {load}
    return spec
'''
CUSTOM = 'spec |= {"task": "custom", "metric": metric, "higher_is_better": True}'
BATCHES = 'spec["calibration"] = batches()'

FINE: dict[str, dict[str, str]] = {
    "prints": {"top": "print('top')", "load": "print('load')", "forward": "print(x.shape)"},
    "warns": {"top": "warnings.warn('top')", "forward": "warnings.warn('odd', stacklevel=2)"},
    "logs": {"forward": "logging.getLogger('mine').warning('odd')"},
    "leaves default dtype": {"load": "torch.set_default_dtype(torch.float64)"},
    "switches gradients off": {"load": "torch.set_grad_enabled(False)"},
    "makes NumPy strict": {"load": "np.seterr(all='raise')"},
    "changes the folder": {"load": "os.chdir(os.sep)"},
    "empties argv": {"load": "sys.argv = []"},
    "forks": {"load": "child = os.fork()\n    if not child: os._exit(0)\n    os.waitpid(child, 0)"},
    "has a hostile name": {"load": "spec['name'] = '\\x1b[2J\\n' * 3; spec['title'] = '\\0' * 9"},
    "has a long name": {"load": "spec['name'] = 'x' * 5000"},
    "counts calls": {"forward": "x = x + 0 * CALLS"},
    "needs a graph's end": {"forward": "return self.two(Backward.apply(self.one(x)).detach())"},
}
"""Analyzed as any other."""

BROKEN: dict[str, tuple[dict[str, str], str]] = {
    "exits on import": ({"top": "sys.exit(0)"}, "SystemExit"),
    "exits in load": ({"load": "sys.exit(0)"}, "SystemExit"),
    "exits with words": ({"load": "sys.exit('no data')"}, "no data"),
    "exits in forward": ({"forward": "sys.exit(0)"}, "SystemExit"),
    "exits in a late forward": ({"forward": "if CALLS > 20: sys.exit(0)"}, "SystemExit"),
    "exits backward": ({"forward": "return self.two(Backward.apply(self.one(x)))"}, "SystemExit"),
    "exits in a hook": ({"load": "model.one.register_forward_hook(lambda *_: sys.exit(0))"}, "SystemExit"),
    "exits in its metric": ({"metric": "sys.exit(0)", "load": CUSTOM}, "SystemExit"),
    "exits in its data": ({"batches": "sys.exit(0)", "load": BATCHES}, "SystemExit"),
    "ends the process on import": ({"top": "os._exit(0)"}, "SystemExit"),
    "ends the process in forward": ({"forward": "os._exit(0)"}, "SystemExit"),
    "reads arguments": ({"top": "__import__('argparse').ArgumentParser().parse_args(['x'])"}, "SystemExit"),
    "interrupts on import": ({"top": "raise KeyboardInterrupt"}, "KeyboardInterrupt"),
    "interrupts in forward": ({"forward": "raise KeyboardInterrupt"}, "KeyboardInterrupt"),
    "raises no Exception": ({"load": "raise Odd('mine')"}, "Odd: mine"),
    "raises no Exception in forward": ({"forward": "raise Odd('mine')"}, "Odd: mine"),
    "raises no Exception in its metric": ({"metric": "raise Odd('mine')", "load": CUSTOM}, "Odd: mine"),
    "closes a generator": ({"forward": "raise GeneratorExit"}, "GeneratorExit"),
    "ends an iteration": ({"forward": "raise StopIteration"}, "StopIteration"),
    "ends an iteration in its metric": ({"metric": "raise StopIteration", "load": CUSTOM}, "StopIteration"),
    "raises without words": ({"forward": "raise ValueError"}, "ValueError"),
    "raises many lines": ({"forward": "raise ValueError('one\\n\\x1b[2Jtwo')"}, "failed"),
    "cannot say what is wrong": ({"forward": "raise Wordless"}, "no words"),
    "calls itself": ({"forward": "return self.forward(x)"}, "recursion"),
    "has no memory": ({"forward": "raise MemoryError"}, "MemoryError"),
    "asks for too much memory": ({"forward": "torch.empty(10**15)"}, "memory"),
    "makes warnings errors": ({"top": "warnings.simplefilter('error')", "forward": "warnings.warn('odd')"}, "odd"),
    "asserts": ({"forward": "assert self.training"}, "AssertionError"),
    "fails in its data": ({"batches": "raise OSError('disk')", "load": BATCHES}, "OSError: disk"),
    "cannot be put in evaluation": ({"load": "spec['model'] = NoEval()"}, "only training"),
    "has a name that is no text": ({"load": "spec['title'] = '\\udc80'"}, "'title' is no text"),
    "has a module that is no text": ({"load": "model.add_module('\\udc80', nn.Linear(3, 3))"}, "no text"),
    "awaits its metric": ({"load": "async def late(o, t): return 1.0\n    " + CUSTOM + "; spec['metric'] = late"}, "metric failed"),
    "has a metric without a value": ({"metric": "return None", "load": CUSTOM}, "metric failed"),
}  # fmt: skip
"""What is wrong, and a word that its one line has to hold."""


def write(folder: Path, parts: dict[str, str], name: str = "mine.py") -> str:
    """Write the file of one oddity; returns how it is named on the command line."""
    given = {
        "top": "",
        "load": "pass",
        "forward": "pass",
        "metric": "pass",
        "batches": "pass",
        **parts,
    }
    path = folder / name
    path.write_text(TEXT.format(**given), encoding="utf-8")
    return f"{path}:load"
