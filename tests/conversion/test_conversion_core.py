"""The rule engine on a made-up table, and what the map of every family promises."""

from dataclasses import dataclass, field

import pytest
import torch

from vidformers.conversion.core import (
    Axis,
    Chain,
    Computed,
    ConversionError,
    Copy,
    Count,
    Present,
    Ratio,
    Reshape,
    Split,
    Stack,
    Transpose,
    Unstack,
    check_sources,
    check_targets,
    convert,
    drop,
    expand,
    linear,
    reverse,
    rule,
)


@dataclass
class Vision:
    width: int = 6
    heads: int = 2


@dataclass
class Config:
    layers: int = 3
    bias: bool = True
    vision: Vision = field(default_factory=Vision)


def table(config: Config) -> torch.Tensor:
    return torch.arange(config.layers, dtype=torch.float32)


SCANNED = Chain((Unstack(), Reshape(("vision.width", "vision.heads", 3), ("vision.width", 6)), Transpose()))
UNFOLDED = Chain((Reshape((12, "vision.width"), (2, 2, 3, "vision.width")), Transpose((3, 2, 0, 1))))
RULES = (
    *linear("head", "head", bias_when="bias"),
    rule(
        "conv", "patches", Chain((Reshape((12, "vision.width"), (2, 2, 3, "vision.width")), Transpose((3, 2, 0, 1))))
    ),
    rule("layer.{i}.query", "stack/query", SCANNED, repeat="layers"),
    rule(("layer.{i}.k", "layer.{i}.v"), "blocks.{i}.kv", Split(2), repeat="layers"),
    rule("tokens", "token.{i}", Stack(), repeat="layers"),
    rule((), "positions", Computed(table)),
    drop("stray", "nothing reads it"),
)
ORIGINAL_SHAPES = {
    "head.weight": (4, 6),
    "head.bias": (4,),
    "patches": (12, 6),
    "stack/query": (3, 6, 2, 3),
    **{f"blocks.{i}.kv": (8, 5) for i in range(3)},
    **{f"token.{i}": (1, 5) for i in range(3)},
    "positions": (3,),
    "stray": (7,),
}
OUR_SHAPES = {
    "head.weight": (4, 6),
    "head.bias": (4,),
    "conv": (6, 3, 2, 2),
    **{f"layer.{i}.query": (6, 6) for i in range(3)},
    **{f"layer.{i}.{part}": (4, 5) for i in range(3) for part in "kv"},
    "tokens": (3, 1, 5),
}


@pytest.fixture
def original():
    tensors = {name: torch.randn(shape) for name, shape in ORIGINAL_SHAPES.items()}
    return tensors | {"positions": table(Config())}


def test_every_operation_has_the_layout_it_says(original):
    ours = dict(convert(expand(RULES, Config()), original.__getitem__))
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == OUR_SHAPES
    assert torch.equal(ours["layer.1.query"], original["stack/query"][1].reshape(6, 6).T)
    assert torch.equal(ours["layer.2.v"], original["blocks.2.kv"][4:])
    assert torch.equal(ours["tokens"][1], original["token.1"])
    assert ours["conv"][5, 2, 0, 1] == original["patches"].reshape(2, 2, 3, 6)[0, 1, 2, 5]


def test_round_trip_gives_every_bit_back(original):
    pairs = expand(RULES, Config())
    ours = dict(convert(pairs, original.__getitem__))
    back = dict(reverse(pairs, ours.__getitem__))
    del original["stray"]
    assert set(back) == set(original)
    for name, tensor in original.items():
        assert torch.equal(back[name], tensor) and back[name].is_contiguous(), name


def test_expansion_needs_no_values(original):
    pairs = expand(RULES, Config())
    assert check_targets(pairs, OUR_SHAPES) == []
    assert check_sources(pairs, ORIGINAL_SHAPES, OUR_SHAPES) == []


def test_prefix_goes_before_our_names_only():
    pair = expand(linear("head", "head"), Config(), prefix="model.")[0]
    assert (pair.targets, pair.sources) == (("model.head.weight",), ("head.weight",))


def test_a_rule_applies_only_when_its_field_says_so():
    names = [name for pair in expand(RULES, Config(bias=False)) for name in pair.targets]
    assert "head.weight" in names and "head.bias" not in names


def test_missing_extra_and_misshapen_tensors_are_each_named():
    found = {**ORIGINAL_SHAPES, "surprise": (2,), "stack/query": (3, 6, 3, 2)}
    del found["token.1"], found["stray"]
    assert sorted(check_sources(expand(RULES, Config()), found, OUR_SHAPES)) == [
        "stack/query: expected shape [3, 6, 2, 3], found shape [3, 6, 3, 2]",
        "surprise: not expected (found shape [2])",
        "token.1: missing (expected shape [1, 5])",
    ]


def test_rules_and_model_must_have_the_same_tensors():
    shapes = {**OUR_SHAPES, "new": (1,)}
    del shapes["conv"]
    problems = check_targets(expand(RULES, Config()), shapes)
    assert problems == [
        "new: a tensor of our model that no rule makes",
        "conv: made by a rule, but our model has no such tensor",
    ]


def test_a_computed_table_must_be_the_one_that_was_trained_with(original):
    original["positions"] = original["positions"] + 1
    with pytest.raises(ConversionError, match="is not what table gives"):
        dict(convert(expand(RULES, Config()), original.__getitem__))


@pytest.mark.parametrize("op", [Copy(), Transpose((2, 0, 1)), Split(2, axis=1), Unstack(), Chain((Split(2), Stack()))])
def test_inverse_undoes_forward(op):
    tensor = torch.randn(4, 6, 2)
    (back,) = op.inverse(op.forward([tensor]))
    assert torch.equal(back, tensor)


SHAPES = {"fc.weight": (6144, 1408), "blocks.0.w": (1,), "blocks.1.w": (1,), "blocks.3.w": (1,)}


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        (Axis("fc.weight", 1), 1408),
        (Axis("absent.weight", 0, absent=0), 0),
        (Count("blocks.{i}.w"), 2),
        (Present("fc.bias"), False),
        (Present("fc.weight"), True),
    ],
)
def test_readers(reader, value):
    assert reader.read(SHAPES) == value
    assert reader.agrees(value, SHAPES)
    assert not reader.agrees(7, SHAPES)


@pytest.mark.parametrize("columns", [11, 26, 48, 384, 1408, 1664])
def test_a_ratio_gives_the_width_back(columns):
    for rows in range(columns, 6 * columns, 7):
        shapes = {"fc.weight": (rows, columns)}
        assert int(columns * Ratio("fc.weight").read(shapes)) == rows


def test_a_ratio_agrees_with_any_number_that_gives_the_width():
    reader = Ratio("fc.weight")
    assert reader.agrees(48 / 11, SHAPES)
    assert reader.agrees(4.3637, SHAPES)
    assert not reader.agrees(4.0, SHAPES)
