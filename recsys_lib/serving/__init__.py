"""Serving: measure honestly, export, retrieve exactly.

Nothing here imports TensorFlow or Numba until a function needs them.
"""

from recsys_lib.serving.candidates import CandidateScorer
from recsys_lib.serving.export import (
    QUANTIZATIONS,
    export_litert,
    export_onnx,
    export_saved_model,
    load_scorer,
)
from recsys_lib.serving.peers import PEERS, PeerIndex
from recsys_lib.serving.profiling import (
    Latency,
    LatencyComparison,
    Machine,
    ModelSize,
    ReadBandwidth,
    Roofline,
    available_cores,
    compare_latency,
    count_flops,
    count_parameters,
    hardware_line,
    measure_latency,
    measure_machine,
    model_size_bytes,
    read_bandwidth,
    roofline,
)
from recsys_lib.serving.retrieval import SearchResult, TopKIndex

__all__ = [
    "PEERS",
    "QUANTIZATIONS",
    "CandidateScorer",
    "Latency",
    "LatencyComparison",
    "Machine",
    "ModelSize",
    "PeerIndex",
    "ReadBandwidth",
    "Roofline",
    "SearchResult",
    "TopKIndex",
    "available_cores",
    "compare_latency",
    "count_flops",
    "count_parameters",
    "export_litert",
    "export_onnx",
    "export_saved_model",
    "hardware_line",
    "load_scorer",
    "measure_latency",
    "measure_machine",
    "model_size_bytes",
    "read_bandwidth",
    "roofline",
]
