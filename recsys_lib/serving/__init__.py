"""Serving: measure honestly, export, retrieve exactly.

Nothing here imports TensorFlow or Numba until a function needs them.
"""

from recsys_lib.serving.candidates import CandidateScorer
from recsys_lib.serving.export import export_litert, export_onnx, export_saved_model
from recsys_lib.serving.latency import Latency, LatencyComparison, compare_latency, measure_latency
from recsys_lib.serving.machine import (
    Machine,
    Roofline,
    count_flops,
    hardware_line,
    measure_machine,
    read_bandwidth,
    roofline,
)
from recsys_lib.serving.retrieval import SearchResult, TopKIndex, merge_top_k
from recsys_lib.serving.scorers import ExportedScorer, load_scorer

__all__ = [
    "CandidateScorer", "ExportedScorer", "Latency", "LatencyComparison", "Machine", "Roofline",
    "SearchResult", "TopKIndex", "compare_latency", "count_flops", "export_litert",
    "export_onnx", "export_saved_model", "hardware_line", "load_scorer", "measure_latency",
    "measure_machine", "merge_top_k", "read_bandwidth", "roofline",
]  # fmt: skip
