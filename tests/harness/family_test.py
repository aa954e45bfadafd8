"""What every mixin builds on: a test written once becomes a test of each model, preset or golden case of a family.

A family's test file inherits mixins and gives them its spec:

    class VJEPA2ModelTest(ModelingMixin, AttentionMixin, PositionsMixin, unittest.TestCase):
        spec = SPEC

Then `@over(models, BACKENDS) def test_forward(self, model, backend)` is there as `test_forward_VJEPA2Model_eager`, and
so on.
"""

import unittest
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FunctionType
from typing import Any, ClassVar

import pytest
import torch
from parameterized import param, parameterized
from transformers import PreTrainedModel

from .family_spec import FamilySpec, GoldenCase, ModelSpec, OffSize, Stock, all_states


Axis = Iterable[Any] | Callable[[FamilySpec], Iterable[Any]]


def models(spec: FamilySpec) -> tuple[ModelSpec, ...]:
    """Every model class."""
    return spec.models


def first_model(spec: FamilySpec) -> tuple[ModelSpec, ...]:
    """The family's first model class, where one shows what all do."""
    return spec.models[:1]


def models_of_transformers(spec: FamilySpec) -> list[ModelSpec]:
    """The model classes that transformers has too."""
    return [model for model in spec.models if isinstance(model.stock, Stock)]


def off_sizes(spec: FamilySpec) -> list[tuple[ModelSpec, OffSize]]:
    """Every model class with each input size besides the configured one that it must take."""
    return [(model, off_size) for model in spec.models for off_size in model.off_sizes]


def presets(spec: FamilySpec) -> Iterable[str]:
    """Names of the published checkpoints."""
    return spec.family.presets


def goldens(spec: FamilySpec) -> tuple[GoldenCase, ...]:
    """Every recorded case. What the repository doesn't hold is slow."""
    return spec.goldens


def over(*axes: Axis) -> Callable[[FunctionType], FunctionType]:
    """Make a mixin's test one for each combination of the axes' values, which become its arguments.

    Args:
        axes: values, or a function from the family's spec to them. A tuple among them is as many arguments.
    """

    def mark(test: FunctionType) -> FunctionType:
        test.axes = axes
        return test

    return mark


class FamilyTest:
    """Base of the mixins. A class with a `spec` gets every test of its mixins, written out.

    Attributes:
        spec: the family.
        made: what `once` has made.
    """

    spec: ClassVar[FamilySpec]
    made: ClassVar[dict[tuple[str, str], Any]]

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls.made = {}
        if "spec" not in vars(cls):
            return
        for name in dir(cls):
            test = getattr(cls, name)
            if hasattr(test, "axes"):
                setattr(cls, name, None)  # the test without arguments is none
                for written in _write_out(test, cls.spec):
                    setattr(cls, written.__name__, written)
            elif name in cls.spec.skips:
                setattr(cls, name, unittest.skip(cls.spec.skips[name])(_copy(test)))

    def once(self, what: str, model: ModelSpec, make: Callable[[], Any]) -> Any:
        """What `make` returns, which all tests of a class share and none may change."""
        key = what, model.label
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]

    def shared(self, model: ModelSpec) -> PreTrainedModel:
        """The tiny model, for tests that change nothing of it."""
        return self.once("model", model, lambda: self.spec.build(model))

    def states(self, model: ModelSpec) -> dict[str, torch.Tensor]:
        """What the tiny model makes of its inputs."""
        return self.once("states", model, lambda: all_states(self.shared(model), self.spec.inputs(model)))

    def temporary_folder(self) -> Path:
        """A new folder that is removed after the test."""
        folder = TemporaryDirectory(prefix="vidformers-")
        self.addCleanup(folder.cleanup)
        return Path(folder.name)


def _write_out(test: FunctionType, spec: FamilySpec) -> Iterable[FunctionType]:
    """A test for each combination of its axes' values, those that the spec leaves out skipped."""
    axes = [axis(spec) if callable(axis) else axis for axis in test.axes]
    combinations = [_spread(values) for values in product(*axes)]
    written: dict[str, FunctionType] = {}
    parameterized.expand(
        [param(*values) for values in combinations],
        name_func=_name,
        doc_func=lambda test, number, values: test.__doc__,
        skip_on_empty=True,
        namespace=written,
    )(_copy(test))
    for values, each in zip(combinations, written.values(), strict=True):
        del each.axes
        if any(isinstance(value, GoldenCase) and not value.committed for value in values):
            each = pytest.mark.slow(each)
        reasons = [spec.skips[key] for key in _skip_keys(test.__name__, values) if key in spec.skips]
        yield unittest.skip(reasons[0])(each) if reasons else each


def _copy(test: FunctionType) -> FunctionType:
    """The function again, so that what is noted on it stays with one family."""
    copy = FunctionType(test.__code__, test.__globals__, test.__name__, test.__defaults__, test.__closure__)
    copy.__dict__.update(test.__dict__)
    copy.__doc__, copy.__qualname__ = test.__doc__, test.__qualname__
    return copy


def _spread(values: Iterable[Any]) -> tuple[Any, ...]:
    """Values with tuples among them, but no named ones, taken apart."""
    return tuple(part for value in values for part in (value if type(value) is tuple else (value,)))


def _name(test: FunctionType, number: str, values: param) -> str:
    return "_".join([test.__name__, *map(parameterized.to_safe_name, map(_label, values.args))])


def _label(value: Any) -> str:
    label = getattr(value, "label", None) or getattr(value, "folder", None) or str(value)
    return label.removeprefix("torch.")


def _skip_keys(name: str, values: tuple[Any, ...]) -> list[str]:
    """Keys of `FamilySpec.skips` that leave a test out: its name, alone or with a model class."""
    return [name, *(f"{name}[{value.name}]" for value in values if isinstance(value, ModelSpec))]
