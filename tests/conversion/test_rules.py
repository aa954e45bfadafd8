"""Rules and forms: what they check, convert and take back, and how a file is told from others."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import vidformers
from vidformers.conversion import ConversionError
from vidformers.conversion.configure import flat, nested, parse_settings
from vidformers.conversion.identify import Request, identify
from vidformers.conversion.load import empty_model, form_of, plan_of
from vidformers.conversion.ops import Chain, Reshape, Split, Stack, Transpose, Unstack
from vidformers.conversion.rules import (
    Bounded,
    Entry,
    Form,
    Rule,
    Shapes,
    check_ours,
    check_theirs,
    convert,
    forms_of,
    leave_out,
    linear,
    reverse,
    section,
)
from vidformers.families import FAMILIES


PATCHES = Chain((Reshape((12, 6), (2, 2, 3, 6)), Transpose((3, 2, 0, 1))))
SCANNED = Chain((Unstack(), Reshape((6, 2, 3), (6, 6)), Transpose()))
WHY = "the test wants it so"
RULES = [
    *linear("head", "head"),
    Rule("conv", "patches", PATCHES, WHY),
    Rule([f"layer.{i}.query" for i in range(3)], "stack/query", SCANNED, WHY),
    *(Rule((f"layer.{i}.k", f"layer.{i}.v"), f"blocks.{i}.kv", Split(2), WHY) for i in range(3)),
    Rule("tokens", [f"token.{i}" for i in range(3)], Stack(), WHY),
    *leave_out(["stray"], "nothing reads it"),
]
THEIR_SHAPES = {
    "head.weight": (4, 6),
    "head.bias": (4,),
    "patches": (12, 6),
    "stack/query": (3, 6, 2, 3),
    **{f"blocks.{i}.kv": (8, 5) for i in range(3)},
    **{f"token.{i}": (1, 5) for i in range(3)},
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
    return {name: torch.randn(shape) for name, shape in THEIR_SHAPES.items()}


# ------------------------------------------------------------------------------------------------------------- rules


def test_every_rule_makes_what_it_says(original):
    ours = dict(convert(RULES, original.__getitem__))
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == OUR_SHAPES
    assert torch.equal(ours["layer.1.query"], original["stack/query"][1].reshape(6, 6).T)
    assert torch.equal(ours["layer.2.v"], original["blocks.2.kv"][4:])
    assert torch.equal(ours["tokens"][1], original["token.1"])
    assert ours["conv"][5, 2, 0, 1] == original["patches"].reshape(2, 2, 3, 6)[0, 1, 2, 5]


def test_round_trip_gives_every_bit_back(original):
    ours = dict(convert(RULES, original.__getitem__))
    back = dict(reverse(RULES, ours.__getitem__))
    del original["stray"]
    assert set(back) == set(original)
    for name, tensor in original.items():
        assert torch.equal(back[name], tensor) and back[name].is_contiguous(), name


def test_missing_extra_and_misshapen_tensors_are_each_named():
    assert not any(check_theirs(RULES, THEIR_SHAPES, OUR_SHAPES).values())
    found = {**THEIR_SHAPES, "surprise": (2,), "stack/query": (3, 6, 3, 2)}
    del found["token.1"], found["stray"]
    assert check_theirs(RULES, found, OUR_SHAPES) == {
        "missing": [("token.1", "missing (expected shape [1, 5])")],
        "of another shape": [("stack/query", "expected shape [3, 6, 2, 3], found shape [3, 6, 3, 2]")],
        "not expected": [("surprise", "not expected (found shape [2])")],
    }


def test_rules_and_model_must_have_the_same_tensors():
    assert check_ours(RULES, OUR_SHAPES) == []
    names = [*(name for name in OUR_SHAPES if name != "conv"), "new"]
    assert check_ours(RULES, names) == [
        "new: a tensor of our model that no rule makes",
        "conv: made by a rule, but our model has no such tensor",
    ]


@pytest.mark.parametrize(
    "arguments", [(("a",), ("b",), Transpose()), ((), ("b",)), (("a",), ())], ids=["operation", "left out", "new"]
)
def test_what_is_no_plain_copy_needs_a_reason(arguments):
    with pytest.raises(ValueError, match="is no plain copy and needs a `why`"):
        Rule(*arguments)
    assert Rule(*arguments, why=WHY).why == WHY


def test_what_is_left_out_stands_for_names_and_for_rules():
    rules = list(leave_out([*linear("head", "head"), "stray"], WHY))
    assert [entry.theirs for entry in rules] == [("head.weight",), ("head.bias",), ("stray",)]
    assert not any(entry.ours for entry in rules)


# ------------------------------------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("columns", [11, 26, 48, 384, 1408, 1664])
def test_a_ratio_gives_the_width_back(columns):
    for rows in range(columns, 6 * columns, 7):
        ratio = Shapes({"fc.weight": (rows, columns)}).ratio("fc.weight")
        assert int(columns * ratio.value) == rows and ratio.fits(ratio.value)


def test_a_ratio_fits_any_number_that_gives_the_width():
    ratio = Shapes({"fc.weight": (6144, 1408)}).ratio("fc.weight")
    assert ratio.fits(48 / 11) and ratio.fits(4.3637) and not ratio.fits(4.0)


def test_shapes_count_without_gaps_and_remember_what_was_asked():
    shapes = Shapes({"blocks.0.w": (1,), "blocks.1.w": (1,), "blocks.3.w": (1,)})
    assert (shapes.count("blocks.{}.w"), shapes.count("layers.{}.w")) == (2, 0)
    with pytest.raises(KeyError):
        shapes["norm"]
    assert shapes.asked == "norm"
    assert shapes.get("blocks.1.w") == (1,) and shapes.asked == "blocks.1.w"
    assert shapes.get("norm", (2,)) == (2,) and shapes.asked == "blocks.1.w"


@pytest.mark.parametrize(
    ("name", "part"), [("opt/state/0", "opt"), ("opt.w", "opt"), ("opt", "opt"), ("optical.w", None)]
)
def test_sections_end_at_a_dot_or_slash(name, part):
    assert section(name, ["epoch", "opt"]) == part


# ------------------------------------------------------------------------------------------ what a file is, its fields


class Tiny(Form):
    """A form of a family of the test, with the class of another."""

    family = "tiny"
    title = "tiny file"
    architecture = "VJEPA2Model"
    entries = {"": Entry(("model", ""), versions=("ema",))}
    fingerprint = ("tiny.weight", "tiny.bias")

    def rules(self, config):
        return iter(())


class TinyHead(Tiny):
    title = "tiny head"
    fingerprint = ("head.weight",)


@pytest.fixture
def tiny(monkeypatch):
    """A family with two forms."""
    family = type(FAMILIES["vjepa2"])("tiny", "Tiny", "TinyConfig", {}, "TinyVideoProcessor")
    monkeypatch.setitem(FAMILIES, "tiny", family)
    known = forms_of
    monkeypatch.setattr(
        "vidformers.conversion.identify.forms_of",
        lambda name: (Tiny(), TinyHead()) if name == "tiny" else known(name),
    )


def sources(*names: str, **probe: str) -> dict:
    """Files with tensors of these names and one shape."""
    tensors = {name: SimpleNamespace(shape=(2,), dtype=torch.float32) for name in names}
    return {"checkpoint": SimpleNamespace(path=Path("file.pt"), tensors=tensors)}


def test_a_file_is_what_its_fingerprint_says(tiny):
    found = identify(sources("model/module.tiny.weight", "model/module.tiny.bias"), Request())
    assert (found.form.family, found.form.title, found[""].prefix) == ("tiny", "tiny file", "module.")
    assert set(found[""].names) == {"tiny.weight", "tiny.bias"}
    assert identify(sources("head.weight", "tiny.bias"), Request()).form.title == "tiny head"


def test_an_unknown_file_is_told_what_was_looked_for(tiny):
    with pytest.raises(ConversionError) as error:
        identify(sources("model/tiny.weight", "model/b"), Request())
    lines = str(error.value).splitlines()
    assert lines[0] == "file.pt: not recognized; file.pt holds 'model/tiny.weight', 'model/b'. Looked for:"
    assert lines[1:-1] == ["  tiny file: known by tiny.weight, tiny.bias; the file lacks tiny.bias"]
    assert "family or preset" in lines[-1]
    with pytest.raises(ConversionError) as error:
        identify(sources("x"), Request())
    looked_for = [form for form in forms_of("vjepa2") if form.files == ("checkpoint",) and not form.on_request]
    assert len(looked_for) > 1 and all(form.title in str(error.value) for form in looked_for)


@pytest.mark.parametrize("name", ["VJEPA2Model", "VideoMAEForVideoClassification", "PeCoreModel"])
def test_weights_of_ours_without_their_configuration(name):
    model_class = getattr(vidformers, name)
    with torch.device("meta"):
        names = model_class(model_class.config_class()).state_dict()
    with pytest.raises(ConversionError, match="format already; there is nothing .*\n.* config.json, which is missing"):
        identify(sources(*names), Request())
    with pytest.raises(ConversionError, match="not recognized"):
        identify(sources(*names, "another"), Request())


def test_a_file_without_tensors():
    with pytest.raises(ConversionError, match="not recognized; file.pt holds no tensors"):
        identify(sources(), Request())


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("PeVisionModel", "PE vision tower"),
        ("PeCoreTextModel", "PE core text tower"),
        ("PeVideoEncoder", "video encoder of PE-AV alone"),
        ("VideoPrismVideoModel", "VideoPrism video tower, scanned layers"),
        ("VideoPrismClipModel", "VideoPrism CLIP, scanned layers"),
    ],
)
def test_a_directory_from_elsewhere_goes_back_as_a_whole_file(name, title):
    model_class = getattr(vidformers, name)
    model = empty_model(model_class, model_class.config_class())
    assert form_of(model).title == title
    others = [form.title for form in forms_of(form_of(model).family) if form.architecture == name]
    assert {form_of(model, other).title for other in others} == set(others)


def test_a_file_of_two_families_asks_for_one(tiny):
    mixed = sources("tiny.weight", "tiny.bias", "patch_embed.proj.weight", "norm.weight")
    with pytest.raises(ConversionError, match=r"may be V-JEPA 2 .* and tiny file .*; say which family it is"):
        identify(mixed, Request())
    assert identify(mixed, Request(family="tiny")).form.title == "tiny file"


def test_versions_are_read_on_request_alone(tiny):
    names = ("ema/tiny.weight", "ema/tiny.bias")
    with pytest.raises(ConversionError, match="has no entry 'model'; it holds .*checkpoint_key, such as 'ema'"):
        identify(sources(*names), Request())
    found = identify(sources(*names, "model/tiny.weight"), Request(checkpoint_key="ema"))
    assert (found[""].place, found.left_out) == ("ema", {"model": "another version of the model"})


def test_training_state_is_read_past_and_the_unknown_is_not(tiny):
    names = ("model/tiny.weight", "model/tiny.bias", "optimizer/state/0/exp_avg", "epoch", "adapter/w")
    found = identify(sources(*names), Request())
    assert found.left_out == {"optimizer": "state of the optimizer", "epoch": "progress of the training"}
    assert set(found.strays) == {"adapter/w"}
    flat = identify(sources("tiny.weight", "tiny.bias", "optimizer/state/0/exp_avg"), Request())
    assert flat[""].place == "" and set(flat.left_out) == {"optimizer"}


def test_long_lists_end_after_five():
    names = [f"predictor/mask_tokens.{i}" for i in range(9)]
    files = sources("target_encoder/patch_embed.proj.weight", *names)
    files["checkpoint"].tensors["target_encoder/patch_embed.proj.weight"].shape = (32, 3, 2, 8, 8)
    shapes = {"norm1.weight": (32,), "mlp.fc1.weight": (128, 32)}
    for name, shape in shapes.items():
        full = f"target_encoder/blocks.0.{name}"
        files["checkpoint"].tensors[full] = SimpleNamespace(shape=shape, dtype=torch.float32)
    predictor = {"predictor_norm.weight": (24,), "predictor_blocks.0.norm1.weight": (24,)}
    predictor |= {"predictor_blocks.0.mlp.fc1.weight": (96, 24), "predictor_proj.weight": (32, 24)}
    for name, shape in predictor.items():
        files["checkpoint"].tensors[f"predictor/{name}"] = SimpleNamespace(shape=shape, dtype=torch.float32)
    fields = {"num_attention_heads": 2, "pred_num_attention_heads": 2, "crop_size": 32, "frames_per_clip": 4}
    with pytest.raises(ConversionError) as error:
        plan_of(files, Request(**fields))
    lines = str(error.value).splitlines()
    assert sum("missing (" in line for line in lines) == 5
    assert any(line.strip().startswith("… and ") and line.endswith(" more missing") for line in lines)
    assert len(lines) < 20
    del files["checkpoint"].tensors["predictor/mask_tokens.0"]
    with pytest.raises(ConversionError, match="If it is meant as V-JEPA 2 hub file, it lacks predictor/mask_tokens.0"):
        plan_of(files, Request(**fields))


def test_settings_of_the_command_line():
    assert parse_settings(["a=1", "b.c=[2]", "b.d=x", "b.e.f=null"]) == {
        "a": 1,
        "b": {"c": [2], "d": "x", "e": {"f": None}},
    }
    for bad in ("a", "a.=1", "=1"):
        with pytest.raises(
            ConversionError, match="expected FIELD=VALUE, such as .*, or vision_config.num_attention_heads=3"
        ):
            parse_settings([bad])
    with pytest.raises(ConversionError, match="b was given a value of its own as well"):
        parse_settings(["b=1", "b.c=2"])
    with pytest.raises(ConversionError, match="b was given a value of its own as well"):
        parse_settings(["b.c=2", "b=1"])
    assert parse_settings(["b=1", "b=2"]) == {"b": 2}


def test_fields_by_dotted_paths_and_back():
    fields = {"vision": {"a": 1, "rope": {"b": [2]}}, "c": None}
    assert flat(fields) == {"vision.a": 1, "vision.rope.b": [2], "c": None}
    assert nested(flat(fields)) == fields


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"text_config": {"num_attention_head": 3}},
            "'num_attention_head'; did you mean .*num_attention_heads",
        ),
        ({"image_size": 3}, r"PeCoreConfig has no field 'image_size'; did you mean vision_config.image_size\?"),
        ({"vision_config": 3}, "vision_config is a configuration; give its fields, as in vision_config.FIELD=VALUE"),
    ],
)
def test_fields_of_sub_configurations(fields, message):
    names = ("visual.conv1.weight", "token_embedding.weight", "logit_scale")
    with pytest.raises(ConversionError, match=message):
        plan_of(sources(*names), Request(**fields))
    assert vidformers.PeCoreConfig().vision_config is not None


def test_a_bound_is_a_value_until_another_one_fits():
    bound = Bounded(12, lambda given: given // 4 == 3)
    assert bound.fits(14) and not bound.fits(16)
