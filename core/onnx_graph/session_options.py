"""How sessions of ONNX Runtime run here. Needs ONNX Runtime alone, so that a process that does no
more than run a model starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnxruntime as ort

FATAL_ONLY = 4


def session_options(threads: int, config: Mapping[str, str]) -> ort.SessionOptions:
    """All graph optimisations, so many threads, the entries of `config`, and nothing on stderr:
    errors are raised.
    """
    found = ort.SessionOptions()
    found.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    found.intra_op_num_threads = threads
    found.inter_op_num_threads = 1
    found.log_severity_level = FATAL_ONLY
    for key, value in config.items():
        found.add_session_config_entry(key, value)
    return found
