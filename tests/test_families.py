"""The shared tests, run on every registered family."""

import pytest

from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin
from tests.harness.config import ConfigMixin
from tests.harness.conversion import ConversionMixin
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import ParityMixin
from tests.harness.positions import PositionsMixin
from tests.harness.processing import ProcessingMixin
from tests.specs import SPECS, load_spec
from vidformers.families import FAMILIES


MIXINS = {
    "Config": ConfigMixin,
    "Modeling": ModelingMixin,
    "Attention": AttentionMixin,
    "Positions": PositionsMixin,
    "Processing": ProcessingMixin,
    "Auto": AutoMixin,
    "Conversion": ConversionMixin,
    "Parity": ParityMixin,
}


def pytest_generate_tests(metafunc):
    """Fill in families, and with them their models, sizes, presets and golden cases, as a test asks for them."""
    wanted = [name for name in ("spec", "model", "off_size", "preset", "golden") if name in metafunc.fixturenames]
    if "spec" not in wanted:
        return
    rows, labels = [], []
    for spec in SPECS:
        for values in combinations(spec, wanted[1:]):
            rows.append((spec, *values))
            labels.append("-".join([spec.family.model_type, *map(label, values)]))
    metafunc.parametrize(wanted, rows, ids=labels)


def combinations(spec, wanted):
    """The values of the parameters besides the family; a test has models (with sizes), presets or golden cases."""
    if wanted == ["model", "off_size"]:
        return [(model, off_size) for model in spec.models for off_size in model.off_sizes]
    kinds = {"model": spec.models, "preset": spec.family.presets, "golden": spec.goldens}
    return [(value,) for value in kinds[wanted[0]]] if wanted else [()]


def label(value):
    return getattr(value, "name", None) or getattr(value, "folder", None) or str(value)


@pytest.fixture(autouse=True)
def skip_for_a_reason(request):
    """Leave out what the spec says cannot apply to the family."""
    spec = request.node.callspec.params.get("spec") if hasattr(request.node, "callspec") else None
    if spec is None:
        return
    name = f"{request.cls.__name__.removeprefix('Test')}.{request.node.originalname}"
    model = request.node.callspec.params.get("model")
    for key in (name, f"{name}[{model.name}]" if model else name):
        if key in spec.skips:
            pytest.skip(spec.skips[key])


class TestConfig(ConfigMixin):
    """Configurations of all families."""


class TestModeling(ModelingMixin):
    """Model classes of all families."""


class TestAttention(AttentionMixin):
    """Attention backends of all model classes."""


class TestPositions(PositionsMixin):
    """Other sizes and positions."""


class TestProcessing(ProcessingMixin):
    """Video processors of all families."""


class TestAuto(AutoMixin):
    """Registration of all families."""


class TestConversion(ConversionMixin):
    """Checkpoint maps of all families."""


class TestParity(ParityMixin):
    """Golden cases of all families."""


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_has_a_spec(model_type):
    assert load_spec(model_type) is not None, f"tests/families/{model_type}.py is missing"


def test_skips_name_tests_and_reasons():
    for spec in SPECS:
        for key, reason in spec.skips.items():
            topic, _, name = key.partition(".")
            assert hasattr(MIXINS[topic], name.partition("[")[0]), f"{key}: there is no such test"
            assert len(reason.split()) > 2, f"{key}: needs a reason"
