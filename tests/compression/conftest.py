"""What the tests of compression share."""

import json
import re

import numpy as np
import pytest

from recsys_lib.compression.tensors import read_tensor
from recsys_lib.models import build_rating_model

ERRORS = (ArithmeticError, ImportError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


@pytest.fixture(scope="session")
def refuses():
    """Return a check of pairs (argument, call): each call raises an error that names it."""

    def check(*cases):
        for name, call in cases:
            try:
                call()
            except ERRORS as error:
                assert re.search(name, str(error))
            else:
                pytest.fail(f"no error names {name}")

    return check


@pytest.fixture(scope="session")
def through_bytes():
    """Return a function that makes a tensor again from its header and arrays, equal to it."""

    def again(tensor):
        header = json.loads(json.dumps(tensor.header()))
        made = read_tensor(tensor.kind, header, tensor.arrays())
        np.testing.assert_array_equal(made.decode(), tensor.decode(), strict=True)
        assert made.nbytes == tensor.nbytes
        return made

    return again


@pytest.fixture(scope="session")
def random_model():
    """Return a function that builds a rating model; all of its weights, biases too, are random."""

    def build(config, std=0.3, keras=None):
        model, random = build_rating_model(config, keras=keras), np.random.default_rng(1)
        model.set_weights([w + random.normal(0, std, w.shape) for w in model.get_weights()])
        return model

    return build


@pytest.fixture(scope="session")
def run_litert():
    """Return a function that runs a LiteRT model and returns the interpreter and its outputs."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    def run(content, inputs, kernels="AUTO", **options):
        """Take ``inputs`` by a part of their name."""
        options["experimental_op_resolver_type"] = getattr(OpResolverType, kernels)
        litert = Interpreter(model_content=content, **options)
        details = litert.get_input_details()
        given = [next(inputs[part] for part in inputs if part in d["name"]) for d in details]
        for detail, values in zip(details, given, strict=True):
            litert.resize_tensor_input(detail["index"], values.shape)
        litert.allocate_tensors()
        for detail, values in zip(details, given, strict=True):
            litert.set_tensor(detail["index"], values)
        litert.invoke()
        return litert, litert.get_tensor(litert.get_output_details()[0]["index"])

    return run
