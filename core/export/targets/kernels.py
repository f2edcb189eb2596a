"""Which nodes are executed as one kernel with an INT8 product, and so have to be chosen with it."""

from __future__ import annotations

from core.export.targets.contract import Job

CLIPPING = ("Relu", "Clip")


def with_activations(job: Job) -> list[str]:
    """Names of INT8 nodes, with the activation that a convolution's kernel takes in: otherwise
    its output would be rounded before the activation, which differs by as much as the error.
    """
    names = list(job.integers)
    chosen = set(names)
    for group in job.graph.fused if job.graph is not None else ():
        if group[0].op_type == "Conv" and group[0].name in chosen:
            after = [n.name for n in group[1:] if n.op_type in CLIPPING and n.name not in chosen]
            names += after
            chosen |= set(after)
    return names
