"""ProbSparse self-attention (Zhou et al. 2021, "Informer", AAAI, sections 3.1 and 3.2)."""

import math

import torch
from torch import Tensor, nn

TIE_STEP = 1e-5
"""Handicap of each later query in the sparsity measure, whose spread is of the order of 1."""


def sparse_count(factor: int, length: int) -> int:
    """How many keys are sampled, and how many queries stay: min(factor * ceil(ln L), L)."""
    return min(factor * math.ceil(math.log(length)), length)


def fixed_key_sample(length: int, count: int, seed: int) -> Tensor:
    """Key indices that evaluation always uses.

    Args:
        length: Number of queries and of keys, L.
        count: Keys sampled for each query, U.
        seed: Seed of a generator of its own, so that the global random state is not touched.

    Returns:
        int64 tensor [L, U] with values in [0, L).
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(length, (length, count), generator=generator)


class ProbSparseAttention(nn.Module):
    """Multi-head self-attention in which only the most telling queries attend.

    A query's sparsity is max - mean of its scores over a few sampled keys. The top u queries get
    full softmax attention; the others get the mean of the values, which is what a uniform
    attention would give them. Not causal. Training draws new keys at every call. Evaluation uses
    the fixed sample, so that two runs and an exported graph agree.
    """

    key_sample: Tensor
    tie_break: Tensor

    def __init__(self, d_model: int, heads: int, length: int, factor: int, seed: int) -> None:
        super().__init__()
        if d_model % heads:
            raise ValueError(f"d_model {d_model} is not a multiple of {heads} heads")
        self.heads = heads
        self.head_size = d_model // heads
        self.length = length
        self.count = sparse_count(factor, length)
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        sample = fixed_key_sample(length, self.count, seed)
        self.register_buffer("key_sample", sample, persistent=False)
        # Rounded activations can tie, and runtimes disagree on which of the tied entries a top-k
        # returns. A stable sort would settle it, but has no ONNX translation.
        ramp = torch.arange(length, dtype=torch.float32) * -TIE_STEP
        self.register_buffer("tie_break", ramp, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each series: [N, L, d_model] -> [N, L, d_model]."""
        query = self._split_heads(self.q_proj(x))
        key = self._split_heads(self.k_proj(x))
        value = self._split_heads(self.v_proj(x))

        top = self._top_queries(query, key)
        rows = top.unsqueeze(-1).expand(-1, -1, -1, self.head_size)
        chosen = torch.gather(query, 2, rows)
        scores = torch.matmul(chosen, key.transpose(-2, -1)) * self.head_size**-0.5
        attended = torch.matmul(torch.softmax(scores, dim=-1), value)

        context = value.mean(dim=2, keepdim=True).expand(-1, -1, self.length, -1)
        context = torch.scatter(context, 2, rows, attended.to(context.dtype))
        merged = context.transpose(1, 2).flatten(2)
        output: Tensor = self.out_proj(merged)
        return output

    def _split_heads(self, x: Tensor) -> Tensor:
        """[N, L, d_model] -> [N, heads, L, head_size]."""
        return torch.unflatten(x, -1, (self.heads, self.head_size)).transpose(1, 2)

    def _top_queries(self, query: Tensor, key: Tensor) -> Tensor:
        """Indices [N, heads, u] of the queries with the largest sparsity measure."""
        if self.training:
            sample = torch.randint(self.length, (self.length, self.count), device=key.device)
        else:
            sample = self.key_sample
        keys = torch.index_select(key, 2, sample.flatten())
        keys = torch.unflatten(keys, 2, (self.length, self.count))
        scores = torch.matmul(query.unsqueeze(-2), keys.transpose(-2, -1)).squeeze(-2)
        measure = scores.amax(dim=-1) - scores.mean(dim=-1)
        return torch.topk(measure + self.tie_break, self.count, dim=-1).indices
