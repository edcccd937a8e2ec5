"""The steps that a recipe is made of: what each does, and which can follow each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from recsys_lib.checks import check_names, check_type, store_numbers
from recsys_lib.compression.compressed import CompressedModel, store_weights
from recsys_lib.compression.embedding_tables.base import TableScheme
from recsys_lib.compression.pruning import DimensionReduction, WeightPruning, prune
from recsys_lib.compression.quantization import (
    CodebookQuantization,
    EntropyCoding,
    ProductQuantization,
    RateDistortion,
    ResidualQuantization,
    SignQuantization,
    TransformCoding,
    UniformQuantization,
    quantize,
)
from recsys_lib.data import Interactions
from recsys_lib.models.factors import Factors, as_factors

_BY_TABLE = (
    UniformQuantization,
    CodebookQuantization,
    ProductQuantization,
    ResidualQuantization,
    SignQuantization,
    TableScheme,
)
_WHOLE_MODEL = (TransformCoding, RateDistortion)


@dataclass(frozen=True, eq=False)
class State:
    """What one step hands to the next.

    Args:
        compressed: the model as it is stored now.
        quantization: how its numbers are rounded, None for not at all.
    """

    compressed: CompressedModel
    quantization: Any = None

    @property
    def model(self) -> Factors:
        """Return the model that the stored forms decode to."""
        return as_factors(self.compressed.model)


def start(model: Any) -> State:
    """Return the state before the first step: tables in float32.

    Example:
        >>> from recsys_lib.models import IALS
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> start(model).compressed.report.relative_error
        0.0
    """
    return State(store_weights("float32", None, as_factors(model), {}))


@dataclass(frozen=True)
class Distill:
    """Train a smaller model to rank as the current one does.

    Args:
        embedding_dim: of the student.
        method: of :mod:`recsys_lib.compression.distillation`, one or a tuple; None for its default.
        options: of :func:`recsys_lib.compression.distillation.distill`, such as epochs and seed.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.
    """

    embedding_dim: int
    method: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    name = property(lambda self: f"Distill {self.embedding_dim}")

    def __post_init__(self) -> None:
        store_numbers(self, 1, "embedding_dim", integer=True)

    def run(self, state: State, train: Interactions) -> State:
        """Return the student, in float32."""
        from recsys_lib.compression.distillation import distill
        from recsys_lib.models import RatingModelConfig

        sizes = train.num_users, train.num_items, self.embedding_dim
        config = RatingModelConfig("dot_product", *sizes)
        methods = self.method if isinstance(self.method, tuple) else (self.method,)
        methods = tuple(method for method in methods if method is not None)
        return start(distill(state.model, config, train, *methods, **self.options).model)


@dataclass(frozen=True)
class ReduceDimensions:
    """Keep the first axes, see :class:`recsys_lib.compression.pruning.DimensionReduction`.

    Args:
        embedding_dim: dimensions that stay.
        axes: "principal", "rotation" (for account "items") or "given".

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.
    """

    embedding_dim: int
    axes: str = "principal"
    name = property(lambda self: f"ReduceDimensions {self.embedding_dim}")

    def __post_init__(self) -> None:
        config = DimensionReduction(self.embedding_dim, self.axes)  # checks both
        object.__setattr__(self, "embedding_dim", config.embedding_dim)

    def run(self, state: State, train: Interactions) -> State:
        """Return the model with shorter vectors."""
        return State(prune(state.model, DimensionReduction(self.embedding_dim, self.axes)))


@dataclass(frozen=True)
class Prune:
    """Set small weights to zero, see :class:`recsys_lib.compression.pruning.WeightPruning`.

    Args:
        config: which, how many, in which pattern, and how they are stored.

    Raises:
        TypeError: another type of config.
    """

    config: WeightPruning = field(default_factory=WeightPruning)

    def __post_init__(self) -> None:
        check_type("config", self.config, (WeightPruning,))

    @property
    def name(self) -> str:
        """Return the step in a few words."""
        sparsity = self.config.sparsity
        return f"Prune {sparsity:.0%}" if isinstance(sparsity, float) else "Prune"

    def run(self, state: State, train: Interactions) -> State:
        """Return the model with zeros; one that was rounded is rounded again, which keeps them."""
        pruned = prune(state.model, self.config)
        if state.quantization is None:
            return State(pruned)
        return Quantize(state.quantization).run(State(pruned), train)


@dataclass(frozen=True)
class Quantize:
    """Store tables in few bits.

    TransformCoding and RateDistortion take both tables together, turn their axes and code what they
    round; the others take each table by itself and leave its axes alone.

    Args:
        config: of :mod:`recsys_lib.compression.quantization` (uniform, codebook, product, transform
            coding, rate-distortion) or a scheme of :mod:`recsys_lib.compression.embedding_tables`;
            or a mapping of "user_vectors" and "item_vectors" to such, where the two shall differ.
        teacher: for rate-distortion, another model to imitate; None for the one that is stored.

    Raises:
        TypeError: another type of config.
        ValueError: a teacher for a quantizer that imitates none.

    Example:
        >>> Quantize(UniformQuantization(bits=4)).name
        'Quantize uniform 4 bits'
    """

    config: Any = field(default_factory=lambda: UniformQuantization(bits=4))
    teacher: Any = None

    def __post_init__(self) -> None:
        by_table = isinstance(self.config, Mapping)
        if by_table:
            check_names("config", self.config, ("user_vectors", "item_vectors"))
        for config in _configs(self.config):
            check_type("config", config, _BY_TABLE if by_table else _BY_TABLE + _WHOLE_MODEL)
        if self.teacher is not None and not isinstance(self.config, RateDistortion):
            raise ValueError("teacher is given: expected a RateDistortion, others imitate nobody")

    @property
    def name(self) -> str:
        """Return the step in a few words."""
        config = self.config
        kind = type(config).__name__.removesuffix("Quantization").removesuffix("Coding").lower()
        if isinstance(config, Mapping):
            return "Quantize by table"
        if isinstance(config, RateDistortion):
            taught = "" if self.teacher is None else ", taught"
            return f"Quantize rate-distortion {config.rate_weight:g}{taught}"
        if isinstance(config, TransformCoding):
            return f"Quantize {kind} {config.relative_error:g}"
        if isinstance(config, ProductQuantization):
            return f"Quantize {kind} {config.num_subspaces} x {config.bits} bits"
        if isinstance(config, ResidualQuantization):
            return f"Quantize {kind} {config.num_stages} x {config.bits} bits"
        if hasattr(config, "rank"):
            return f"Quantize low rank {config.rank}"
        return f"Quantize {kind} {config.bits} bits" if hasattr(config, "bits") else "Quantize"

    def run(self, state: State, train: Interactions) -> State:
        """Return the model with rounded tables."""
        compressed = quantize(state.model, self.config, train=train, teacher=self.teacher)
        return State(compressed, self.config)


@dataclass(frozen=True)
class EntropyCode:
    """Write codes with fewer bits for frequent ones.

    Args:
        config: which codes share a table of frequencies.

    Raises:
        TypeError: another type of config.
    """

    config: EntropyCoding = field(default_factory=EntropyCoding)
    name = "EntropyCode"

    def __post_init__(self) -> None:
        check_type("config", self.config, (EntropyCoding,))

    def run(self, state: State, train: Interactions) -> State:
        """Return the same model in fewer bytes."""
        tensors = state.compressed.tensors.items()
        coded = {n: self.config.encode(t) if hasattr(t, "codes") else t for n, t in tensors}
        compressed = store_weights("entropy coding", self.config, state.model, coded)
        return replace(state, compressed=compressed)


Step = Distill | ReduceDimensions | Prune | Quantize | EntropyCode
Recipe = Sequence[Step]


def ordered_steps(recipe: Recipe, embedding_dim: int) -> list[Step]:
    """Return the steps as a list, or refuse those that cannot follow each other.

    Distillation starts anew: its result is stored in float32, whatever was done to the teacher. So
    anything may come before it but entropy coding, which is about files and not about models.

    Args:
        recipe: steps in order.
        embedding_dim: of the model that the recipe is for.

    Raises:
        TypeError: not a list of steps.
        ValueError: no steps, more dimensions than there are, or an order that makes no sense; the
            message says why.

    Example:
        >>> ordered_steps([EntropyCode()], 8)
        Traceback (most recent call last):
        ValueError: recipe[0] is EntropyCode: expected Quantize before it, floats have no codes
    """
    check_type("recipe", recipe, (list, tuple))
    if not recipe:
        raise ValueError("recipe is empty: expected at least one step")
    before: dict[type, Any] = {}  # since the last distillation
    width = embedding_dim
    for place, step in enumerate(recipe):
        check_type(f"recipe[{place}]", step, get_args(Step))
        if reason := _conflict(step, before, width):
            raise ValueError(f"recipe[{place}] is {type(step).__name__}: expected {reason}")
        if isinstance(step, Distill):
            before = {}
        if isinstance(step, Distill | ReduceDimensions):
            width = step.embedding_dim
        before[type(step)] = step
    return list(recipe)


def _conflict(step: Step, before: Mapping[type, Any], width: int) -> str:
    """Return what should have been, or nothing if the step can come here."""
    if EntropyCode in before:
        return "nothing after EntropyCode, which is about the file and not the model"
    config = before[Quantize].config if Quantize in before else None
    if isinstance(step, EntropyCode):
        if config is None:
            return "Quantize before it, floats have no codes"
        if isinstance(config, _WHOLE_MODEL):
            return f"no EntropyCode after {type(config).__name__}, which has coded already"
        if any(isinstance(one, TableScheme) for one in _configs(config)):
            return "a quantization before it, a scheme of embedding_tables has no codes"
    if isinstance(step, ReduceDimensions):
        if config is not None or Prune in before:
            return "ReduceDimensions before Prune and Quantize, new axes undo both"
        if step.embedding_dim > width:
            return f"at most {width} dimensions, what there is at that point"
    if isinstance(step, Quantize) and config is not None:
        return "one Quantize, the second would undo the first"
    rounds_zero = "UniformQuantization with symmetric=True or exact_zero=True"
    if isinstance(step, Quantize) and Prune in before and not _keeps_zeros(step.config):
        return f"{rounds_zero} after Prune, so that zeros stay zeros"
    if isinstance(step, Prune) and config is not None and not _keeps_zeros(config):
        return f"{rounds_zero} before Prune, so that zero is one of its numbers"
    return ""


def _configs(config: Any) -> list[Any]:
    return list(config.values()) if isinstance(config, Mapping) else [config]


def _keeps_zeros(config: Any) -> bool:
    return all(
        isinstance(one, UniformQuantization) and (one.symmetric or one.exact_zero)
        for one in _configs(config)
    )
