"""The same techniques through TensorFlow Model Optimization (TFMOT), on a twin of the model.

TFMOT works on Keras 2 alone. A rating model therefore gets a twin in ``tf_keras``, built by the
same function and with the same weights; TFMOT trains that one, and the weights come back into a
Keras 3 model. Needs ``pip install recsys-lib[tfmot]``.
"""

from recsys_lib.compression.tfmot.clustering import TfmotClustering, cluster_with_tfmot
from recsys_lib.compression.tfmot.pruning import TfmotPruning, prune_with_tfmot
from recsys_lib.compression.tfmot.quantization import (
    TfmotQuantization,
    qat_with_tfmot,
    quantization_aware_twin,
)
from recsys_lib.compression.tfmot.training import TwinTraining
from recsys_lib.compression.tfmot.twin import from_twin, to_twin

__all__ = [
    "TfmotClustering",
    "TfmotPruning",
    "TfmotQuantization",
    "TwinTraining",
    "cluster_with_tfmot",
    "from_twin",
    "prune_with_tfmot",
    "qat_with_tfmot",
    "quantization_aware_twin",
    "to_twin",
]
