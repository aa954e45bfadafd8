"""What looks at all families: each has a spec, runs every shared test, and names every recorded case."""

import inspect
import pkgutil
import unittest
from importlib import import_module
from types import ModuleType

import pytest

from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin
from tests.harness.citizen import CitizenMixin
from tests.harness.config import ConfigMixin
from tests.harness.conversion import ConversionMixin
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import ParityMixin, unknown_cases
from tests.harness.positions import PositionsMixin
from tests.harness.processing import ProcessingMixin
from tests.specs import SPECS, load_spec
from vidformers.families import FAMILIES


MIXINS = (
    ConfigMixin,
    ModelingMixin,
    AttentionMixin,
    PositionsMixin,
    ProcessingMixin,
    AutoMixin,
    CitizenMixin,
    ConversionMixin,
    ParityMixin,
)


def room(model_type: str) -> list[ModuleType]:
    """The test files of a family."""
    package = import_module(f"tests.{model_type}")
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [import_module(f"{package.__name__}.{name}") for name in names if name.startswith("test_")]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_has_a_spec(model_type):
    assert load_spec(model_type) is not None, f"tests/{model_type}/spec.py is missing"


@pytest.mark.parametrize("mixin", MIXINS, ids=lambda mixin: mixin.__name__)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.family.model_type)
def test_every_family_runs_every_shared_test(spec, mixin):
    classes = [
        each for module in room(spec.family.model_type) for _, each in inspect.getmembers(module, inspect.isclass)
    ]
    users = [each for each in classes if issubclass(each, mixin) and issubclass(each, unittest.TestCase)]
    assert any(each.spec is spec for each in users), (
        f"expected a class in tests/{spec.family.model_type}/test_*.py that inherits {mixin.__name__} and has the spec"
    )


def test_skips_name_tests_and_reasons():
    for spec in SPECS:
        for key, reason in spec.skips.items():
            name, _, model = key.partition("[")
            assert sum(hasattr(mixin, name) for mixin in MIXINS) == 1, f"{key}: there is no such test, or several"
            assert model.rstrip("]") in {"", *spec.family.model_classes}, f"{key}: there is no such model class"
            assert len(reason.split()) > 2, f"{key}: needs a reason"


@pytest.mark.parametrize("folder", sorted({spec.goldens_folder or spec.family.model_type for spec in SPECS}))
def test_every_recorded_case_is_known(folder):
    """By one of the families whose cases lie in the folder."""
    specs = [spec for spec in SPECS if (spec.goldens_folder or spec.family.model_type) == folder]
    assert not unknown_cases(specs), "golden cases that no spec names"
