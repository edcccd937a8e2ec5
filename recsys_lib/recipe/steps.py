"""The steps that a recipe is made of, and which of them can follow each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys_lib.checks import check_choice, check_number
from recsys_lib.compression.embedding_tables.base import TableScheme
from recsys_lib.compression.pruning import DimensionReduction, WeightPruning
from recsys_lib.compression.quantization import (
    CodebookQuantization,
    EntropyCoding,
    ProductQuantization,
    RateDistortion,
    TransformCoding,
    UniformQuantization,
)

INNER_PRODUCTS = ("dot_product", "matrix_factorization", "two_tower")
BY_TABLE = (UniformQuantization, CodebookQuantization, ProductQuantization, TableScheme)
WHOLE_MODEL = (TransformCoding, RateDistortion)


@dataclass(frozen=True)
class Distill:
    """Train a smaller model to rank as the current one does.

    Args:
        embedding_dim: of the student.
        kind: "dot_product", "matrix_factorization" or "two_tower".
        method: of :mod:`recsys_lib.compression.distillation`, one or a tuple; None for its default.
        options: of :func:`recsys_lib.compression.distillation.distill`, such as epochs and seed.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.
    """

    embedding_dim: int
    kind: str = "dot_product"
    method: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_number("embedding_dim", self.embedding_dim, 1, integer=True)
        check_choice("kind", self.kind, INNER_PRODUCTS)


@dataclass(frozen=True)
class ReduceDimensions:
    """Keep the first principal axes, see :func:`recsys_lib.compression.pruning.reduce_dimensions`.

    Args:
        embedding_dim: dimensions that stay.
        axes: "principal" or "given".

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.
    """

    embedding_dim: int
    axes: str = "principal"

    def __post_init__(self) -> None:
        DimensionReduction(self.embedding_dim, self.axes)


@dataclass(frozen=True)
class Prune:
    """Set small weights to zero, see :func:`recsys_lib.compression.pruning.prune_weights`.

    Args:
        config: which, how many, in which pattern, and how they are stored.

    Raises:
        TypeError: another type of config.
    """

    config: WeightPruning = field(default_factory=WeightPruning)

    def __post_init__(self) -> None:
        _check_type("config", self.config, (WeightPruning,))


@dataclass(frozen=True)
class Quantize:
    """Store tables in few bits.

    A quantizer in :data:`WHOLE_MODEL` takes both tables together, turns their axes and codes what
    it rounds; the others take each table by itself and leave its axes alone.

    Args:
        config: of :mod:`recsys_lib.compression.quantization` (uniform, codebook, product, transform
            coding, rate-distortion) or a scheme of :mod:`recsys_lib.compression.embedding_tables`;
            or a mapping of "user_vectors" and "item_vectors" to such, where the two shall differ.
        teacher: for rate-distortion, another model to imitate; None for the one that is stored.

    Raises:
        TypeError: another type of config.
        ValueError: a teacher for a quantizer that imitates none.

    Example:
        >>> Quantize(UniformQuantization(bits=4)).config.bits
        4
    """

    config: Any = field(default_factory=lambda: UniformQuantization(bits=4))
    teacher: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.config, Mapping):
            for name, config in self.config.items():
                check_choice("config", name, ("user_vectors", "item_vectors"))
                _check_type(f"config[{name!r}]", config, BY_TABLE)
        else:
            _check_type("config", self.config, (*BY_TABLE, *WHOLE_MODEL))
        if self.teacher is not None and not isinstance(self.config, RateDistortion):
            raise ValueError(
                f"teacher is given with {type(self.config).__name__}: expected RateDistortion, the "
                "others round and imitate nobody"
            )


@dataclass(frozen=True)
class EntropyCode:
    """Write codes with fewer bits for frequent ones.

    Args:
        config: which codes share a table of frequencies.

    Raises:
        TypeError: another type of config.
    """

    config: EntropyCoding = field(default_factory=EntropyCoding)

    def __post_init__(self) -> None:
        _check_type("config", self.config, (EntropyCoding,))


Step = Distill | ReduceDimensions | Prune | Quantize | EntropyCode
Recipe = Sequence[Step]


def check_recipe(recipe: Recipe, embedding_dim: int) -> list[Step]:
    """Give the steps as a list, or refuse those that cannot follow each other.

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
        >>> check_recipe([EntropyCode()], 8)
        Traceback (most recent call last):
        ValueError: recipe[0] is EntropyCode: expected Quantize before it, floats have no codes
    """
    if isinstance(recipe, str) or not isinstance(recipe, Sequence):
        raise TypeError(f"recipe is of type {type(recipe).__name__}: expected a list of steps")
    if not recipe:
        raise ValueError("recipe is empty: expected at least one step")
    before: list[Step] = []  # since the last distillation
    width = embedding_dim
    for place, step in enumerate(recipe):
        where = f"recipe[{place}] is {type(step).__name__}"
        if not isinstance(step, Step):
            raise TypeError(
                f"{where}: expected Distill, ReduceDimensions, Prune, Quantize or EntropyCode"
            )
        if reason := _conflict(step, before):
            raise ValueError(f"{where}: expected {reason}")
        if isinstance(step, ReduceDimensions) and step.embedding_dim > width:
            raise ValueError(
                f"{where} to {step.embedding_dim}: expected at most {width} dimensions, what there "
                "is at that point"
            )
        if isinstance(step, ReduceDimensions | Distill):
            width = step.embedding_dim
        if isinstance(step, Distill):
            # A tower ends in its own width, and biases add dimensions: ask the model then.
            width = step.embedding_dim if step.kind == "dot_product" else width + 2
            before = []
        before.append(step)
    return list(recipe)


def _conflict(step: Step, before: list[Step]) -> str:
    """Give what should have been, or nothing if the step can come here."""
    had = {type(earlier): earlier for earlier in before}
    if EntropyCode in had:
        return "nothing after EntropyCode, which is about the file and not the model"
    quantized = had.get(Quantize)
    if isinstance(step, EntropyCode):
        if not isinstance(quantized, Quantize):
            return "Quantize before it, floats have no codes"
        if isinstance(quantized.config, WHOLE_MODEL):
            name = type(quantized.config).__name__
            return f"no EntropyCode after {name}, which has coded already"
        if any(isinstance(one, TableScheme) for one in _configs(quantized.config)):
            return "a quantization before it, a scheme of embedding_tables has no codes"
    if isinstance(step, ReduceDimensions) and (Quantize in had or Prune in had):
        return "ReduceDimensions before Prune and Quantize, new axes undo both"
    if isinstance(step, Quantize):
        if Quantize in had:
            return "one Quantize, the second would undo the first"
        if Prune in had and not _keeps_zeros(step.config):
            return (
                "UniformQuantization with symmetric=True or exact_zero=True after Prune, so that "
                "zeros stay zeros"
            )
    zero_is_lost = isinstance(quantized, Quantize) and not _keeps_zeros(quantized.config)
    if isinstance(step, Prune) and zero_is_lost:
        return (
            "UniformQuantization with symmetric=True or exact_zero=True before Prune, so that "
            "zero is one of its numbers"
        )
    return ""


def _configs(config: Any) -> list[Any]:
    return list(config.values()) if isinstance(config, Mapping) else [config]


def _keeps_zeros(config: Any) -> bool:
    return all(
        isinstance(one, UniformQuantization) and (one.symmetric or one.exact_zero)
        for one in _configs(config)
    )


def _check_type(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds):
        expected = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} is of type {type(value).__name__}: expected {expected}")
