"""VideoMAE: original files to models and directories, and back."""

import argparse
import json
import os
import unittest
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForVideoClassification
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from typer.testing import CliRunner

import vidformers
from tests.harness.conversion import ConversionMixin
from tests.original_files import linear, norm, random_tensors
from tests.videomae.spec import SPEC
from vidformers.commands.cli import app
from vidformers.conversion import (
    ConversionError,
    convert_checkpoint,
    load,
    load_original,
    ops,
    reverse_directory,
    verify,
    verify_directory,
)
from vidformers.conversion.rules import check_ours, check_theirs, forms_of
from vidformers.models.videomae.record import FAMILY as VIDEOMAE


# What no shape tells.
FIELDS = {"num_attention_heads": 4, "image_size": 16, "num_frames": 4}
CONFIG = {**FIELDS, "decoder_num_attention_heads": 2}
CLASSIFIER = vidformers.VideoMAEForVideoClassification
HEADS = {"small": (6, 3), "base": (12, 6), "large": (16, 8), "huge": (16, 8)}
"""Of encoder and decoder, which no shape tells."""

COMMITTED = Path(__file__).parents[1] / "goldens"
GOLDENS = {
    case.name: case
    for root in (os.environ.get("VIDFORMERS_GOLDENS"), COMMITTED)
    if root
    for case in sorted((Path(root) / "videomae").iterdir())
    if (case / "checkpoint.pt").exists()
}


class VideoMAEConversionTest(ConversionMixin, unittest.TestCase):
    """The tests that all families share."""

    spec = SPEC


# ------------------------------------------------------------------------------------------------------------- files


def block(name: str, width: int, mlp: int, qv_bias: bool = True, scale: bool = False) -> dict:
    shapes = {
        **norm(f"{name}.norm1", width),
        **linear(f"{name}.attn.qkv", 3 * width, width, bias=False),
        **linear(f"{name}.attn.proj", width, width),
        **norm(f"{name}.norm2", width),
        **linear(f"{name}.mlp.fc1", mlp, width),
        **linear(f"{name}.mlp.fc2", width, mlp),
    }
    if qv_bias:
        shapes |= {f"{name}.attn.{bias}": (width,) for bias in ("q_bias", "v_bias")}
    if scale:
        shapes |= {f"{name}.gamma_{number}": (width,) for number in (1, 2)}
    return shapes


def encoder(prefix: str = "", width=24, depth=2, mlp=48, patch=(8, 8), tubelet=2, channels=3, positions=0, **blocks):
    shapes = {
        f"{prefix}patch_embed.proj.weight": (width, channels, tubelet, *patch),
        f"{prefix}patch_embed.proj.bias": (width,),
        **({f"{prefix}pos_embed": (1, positions, width)} if positions else {}),
    }
    for index in range(depth):
        shapes |= block(f"{prefix}blocks.{index}", width, mlp, **blocks)
    return shapes


def finetuned(labels: int = 5, pooled: bool = True, width: int = 24, **sizes) -> dict:
    """`modeling_finetune.py`."""
    last = norm("fc_norm" if pooled else "norm", width)
    return {**encoder(width=width, **sizes), **last, **linear("head", labels, width)}


def pretrained(width=24, decoder_width=16, decoder_depth=1, decoder_mlp=32, pixels=384, **sizes) -> dict:
    """`modeling_pretrain.py`."""
    shapes = {
        "mask_token": (1, 1, decoder_width),
        **encoder("encoder.", width=width, **sizes),
        **norm("encoder.norm", width),
        **linear("encoder_to_decoder", decoder_width, width, bias=False),
        **norm("decoder.norm", decoder_width),
        **linear("decoder.head", pixels, decoder_width),
    }
    blocks = {name: sizes[name] for name in ("qv_bias", "scale") if name in sizes}
    for index in range(decoder_depth):
        shapes |= block(f"decoder.blocks.{index}", decoder_width, decoder_mlp, **blocks)
    return shapes


def tree(shapes: dict, entry: str = "model", seed: int = 0, **more) -> dict:
    """A file as `utils.py` saves it, with what training leaves beside the weights."""
    state = {"state": {0: {"exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 0.1}]}
    arguments = argparse.Namespace(model="vit", window_size=(2, 2, 2), lr=0.1, drop=None)
    beside = {"optimizer": state, "epoch": 3, "scaler": {"scale": 65536.0}, "args": arguments}
    return {entry: random_tensors(shapes, seed), **beside, **more}


@pytest.fixture
def files(tmp_path):
    torch.save(tree(finetuned()), tmp_path / "finetuned.pth")
    torch.save(tree(pretrained()), tmp_path / "pretrained.pth")
    return tmp_path


def read(path: Path) -> dict:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


def equal(found: dict, expected: dict) -> None:
    assert list(found) and set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


# ------------------------------------------------------------------------------------------------------ what it reads


def test_shapes_tell_the_class_and_the_sizes(files):
    model = load_original(files / "pretrained.pth", **CONFIG)
    assert type(model) is vidformers.VideoMAEForPreTraining and not model.training
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (24, 2, 48)
    assert (config.patch_size, config.tubelet_size, config.num_channels) == (8, 2, 3)
    assert (config.decoder_hidden_size, config.decoder_num_hidden_layers, config.decoder_intermediate_size) == (
        16,
        1,
        32,
    )
    assert config.qv_bias and config.use_pretraining_norm and not config.use_learnable_pos_emb
    # transformers drops the norm of the encoder's tokens with it.
    assert not config.use_mean_pooling

    model = load_original(files / "finetuned.pth", **FIELDS)
    assert type(model) is CLASSIFIER and model.config.architectures == ["VideoMAEForVideoClassification"]
    assert (model.config.num_labels, model.config.use_mean_pooling, model.config.layer_scale_init_value) == (
        5,
        True,
        0,
    )


def test_sizes_of_all_kinds_are_read(tmp_path):
    sizes = {"width": 30, "depth": 3, "mlp": 50, "patch": (4, 8), "tubelet": 1, "channels": 1, "positions": 32}
    torch.save(tree(finetuned(7, pooled=False, qv_bias=False, scale=True, **sizes)), tmp_path / "vit.pth")
    config = load_original(tmp_path / "vit.pth", num_attention_heads=3, image_size=16, num_frames=4).config
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (30, 3, 50)
    assert (config.patch_size, config.tubelet_size, config.num_channels) == ([4, 8], 1, 1)
    assert config.use_learnable_pos_emb and config.layer_scale_init_value > 0
    assert not config.qv_bias and not config.use_mean_pooling and config.num_labels == 7


def test_sizes_that_say_the_same_are_no_contradiction(tmp_path):
    torch.save(tree(finetuned(scale=True)), tmp_path / "vit.pth")
    for patch_size, scale in ((8, 1e-5), ([8, 8], 0.1), ((8, 8), 1)):
        config = load_original(
            tmp_path / "vit.pth", patch_size=patch_size, layer_scale_init_value=scale, **FIELDS
        ).config
        assert config.patch_size == patch_size and config.layer_scale_init_value == scale
    with pytest.raises(ConversionError, match="layer_scale_init_value=0 was given, but .* say 0.1"):
        load_original(tmp_path / "vit.pth", layer_scale_init_value=0, **FIELDS)


def test_tensors_arrive_where_they_belong(files):
    """Written out by hand wherever a wrong order would keep names and shapes."""
    for path, stacks in (
        ("finetuned.pth", {"": lambda model: model.videomae.encoder.layer}),
        (
            "pretrained.pth",
            {
                "encoder.": lambda model: model.videomae.encoder.layer,
                "decoder.": lambda model: model.decoder.decoder_layers,
            },
        ),
    ):
        original, model = read(files / path)["model"], load_original(files / path, **CONFIG)
        for prefix, layers in stacks.items():
            for index, layer in enumerate(layers(model)):
                name, attention = f"{prefix}blocks.{index}", layer.attention.attention
                projections = (attention.query, attention.key, attention.value)
                for projection, expected in zip(
                    projections, original[f"{name}.attn.qkv.weight"].chunk(3), strict=True
                ):
                    assert torch.equal(projection.weight, expected)
                assert torch.equal(attention.q_bias, original[f"{name}.attn.q_bias"])
                assert torch.equal(attention.v_bias, original[f"{name}.attn.v_bias"])
                assert torch.equal(layer.layernorm_before.weight, original[f"{name}.norm1.weight"])
                assert torch.equal(layer.layernorm_after.bias, original[f"{name}.norm2.bias"])
                assert torch.equal(layer.attention.output.dense.bias, original[f"{name}.attn.proj.bias"])
                assert torch.equal(layer.output.dense.bias, original[f"{name}.mlp.fc2.bias"])


@pytest.mark.parametrize("form", ["model", "module", "bare", "safetensors", "half"])
def test_forms_of_files(tmp_path, form):
    tensors = random_tensors(finetuned(), 0, torch.float16 if form == "half" else torch.float32)
    path = tmp_path / ("vit.safetensors" if form == "safetensors" else "vit.pth")
    if form == "safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors if form == "bare" else {"model" if form == "model" else "module": tensors}, path)
    convert_checkpoint(path, tmp_path / "out", **FIELDS)
    model = CLASSIFIER.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.float32 and torch.equal(model.classifier.weight, tensors["head.weight"].float())
    reverse_directory(tmp_path / "out", tmp_path / "back.pth")
    back = read(tmp_path / "back.pth")
    if form not in ("bare", "safetensors"):
        assert set(back) == {"model" if form == "model" else "module"}
        (back,) = back.values()
    equal(back, tensors)


def test_the_moving_average_on_request(files):
    average = random_tensors(finetuned(), seed=5)
    torch.save(tree(finetuned(), model_ema=average, module=average), files / "both.pth")
    assert not torch.equal(load_original(files / "both.pth", **FIELDS).classifier.weight, average["head.weight"])
    convert_checkpoint(files / "both.pth", files / "out", checkpoint_key="model_ema", **FIELDS)
    assert torch.equal(CLASSIFIER.from_pretrained(files / "out").classifier.weight, average["head.weight"])
    noted = json.loads((files / "out/provenance.json").read_text())
    assert noted["left_out"] == {
        "model": "another version of the model",
        "module": "another version of the model",
        "optimizer": "state of the optimizer",
    }


def test_from_original_is_the_same_on_a_class(files):
    class Mine(vidformers.VideoMAEForPreTraining):
        pass

    assert type(Mine.from_original(files / "pretrained.pth", **CONFIG)) is Mine


# -------------------------------------------------------------------------------------------- rules and their models


@pytest.mark.parametrize("name", [name for name in VIDEOMAE.presets if "-v2-" not in name])
def test_the_rules_make_exactly_the_tensors_of_every_preset(name):
    """With the original's shapes at full size, and no memory."""
    preset = VIDEOMAE.presets[name]
    config = vidformers.VideoMAEConfig(**preset.config)
    model = load.empty_model(getattr(vidformers, preset.architecture), config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    sizes = {"width": config.hidden_size, "depth": config.num_hidden_layers, "mlp": 4 * config.hidden_size}
    if name.endswith("-finetuned"):
        labels = {"k400": 400, "ssv2": 174, "ucf101": 101}[name.split("-")[2]]
        original = finetuned(labels, patch=(16, 16), **sizes)
    else:
        width = config.decoder_hidden_size
        depth = 12 if config.hidden_size > 1000 else 4
        decoder = {"decoder_width": width, "decoder_depth": depth, "decoder_mlp": 4 * width, "pixels": 1536}
        original = pretrained(patch=(16, 16), **sizes, **decoder)
    assert (config.num_attention_heads, config.decoder_num_attention_heads) == HEADS[name.split("-")[1]]
    assert preset.source.startswith("https://drive.google.com/file/d/1") and preset.license == "cc-by-nc-4.0"
    forms = [form for form in forms_of("videomae") if form.architecture == preset.architecture and not form.on_request]
    rules = list(forms[0].rules(config))
    assert check_ours(rules, shapes) == [] and not any(check_theirs(rules, original, shapes).values())


HEADS_V2 = {"small": (6, 3), "base": (12, 6), "large": (16, 8), "huge": (16, 8), "giant": (16, 8)}
LABELS_V2 = {"k710": 710, "k400": 400, "k600": 600, "ssv2": 174, "ucf101": 101, "hmdb51": 51}


@pytest.mark.parametrize("name", [name for name in VIDEOMAE.presets if "-v2-" in name])
def test_the_rules_make_exactly_the_tensors_of_v2(name):
    preset, size = VIDEOMAE.presets[name], name.split("-")[2]
    config = vidformers.VideoMAEConfig(**preset.config)
    assert (config.num_attention_heads, config.decoder_num_attention_heads) == HEADS_V2[size]
    model = load.empty_model(getattr(vidformers, preset.architecture), config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    patch, mlp = (14, 6144) if size == "giant" else (16, 4 * config.hidden_size)
    sizes = {"width": config.hidden_size, "depth": config.num_hidden_layers, "mlp": mlp, "patch": (patch, patch)}
    if preset.architecture == "VideoMAEForVideoClassification":
        data = name.removesuffix("-finetuned").removesuffix("-distilled-from-giant").rpartition("-")[2]
        original = finetuned(LABELS_V2[data], **sizes)
    elif preset.architecture == "VideoMAEModel":
        original = {f"model.{key}": shape for key, shape in finetuned(**sizes).items() if "head" not in key}
    else:
        decoder = {"small": (192, 768), "base": (384, 1536), "giant": (512, 2234)}.get(size, (512, 2048))
        decoder = dict(zip(("decoder_width", "decoder_mlp"), decoder, strict=True), decoder_depth=4)
        original = pretrained(**sizes, **decoder, pixels=6 * patch**2)
    forms = [form for form in forms_of("videomae") if form.architecture == preset.architecture and not form.on_request]
    rules = list(forms[0].rules(config))
    assert check_ours(rules, shapes) == [] and not any(check_theirs(rules, original, shapes).values())
    is_on_hub = preset.source is not None and preset.source.startswith("https://huggingface.co/OpenGVLab/")
    assert preset.license == ("cc-by-nc-4.0" if is_on_hub else None)


def test_swapped_biases_are_noticed(files, monkeypatch):
    """A wrong rule keeps all names and shapes; only numbers can tell, and the comparison of stages does."""

    def stages():
        model = load_original(files / "finetuned.pth", **FIELDS)
        calls = verify.adapter("videomae").example_calls(model.config, "VideoMAEForVideoClassification")
        return verify.run_stages(model, calls)

    right = stages()
    split = ops.Split.forward
    monkeypatch.setattr(ops.Split, "forward", lambda op, tensors: [split(op, tensors)[i] for i in (1, 0, 2)])
    report = verify.compare("swapped", right, stages(), 1e-5)
    assert report.first_diverging == "video.hidden_states.1"


# ---------------------------------------------------------------------------- classifiers from pre-trained weights


def test_a_classifier_from_pretrained_weights(files, monkeypatch):
    said = []
    monkeypatch.setattr("vidformers.conversion.load.logger.warning", said.append)
    torch.manual_seed(0)
    model = CLASSIFIER.from_original(files / "pretrained.pth", num_labels=1000, **CONFIG)
    assert len(said) == 1
    for words in (
        "pretrained.pth",
        "to be trained: fc_norm, classifier.",
        "`encoder.norm.weight` and 1 more",
        "decoder",
    ):
        assert words in said[0]
    original = read(files / "pretrained.pth")["model"]
    assert model.config.use_mean_pooling and model.videomae.layernorm is None
    assert torch.equal(model.videomae.encoder.layer[1].output.dense.bias, original["encoder.blocks.1.mlp.fc2.bias"])
    assert (model.fc_norm.weight == 1).all() and not model.fc_norm.bias.any() and not model.classifier.bias.any()
    # `--init_scale` 0.001 of the original's fine-tuning times the usual 0.02
    assert model.classifier.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not any(parameter.is_meta for parameter in model.parameters()) and not model.training
    torch.manual_seed(0)
    again = CLASSIFIER.from_original(files / "pretrained.pth", num_labels=1000, **CONFIG)
    assert torch.equal(again.classifier.weight, model.classifier.weight)
    half = CLASSIFIER.from_original(files / "pretrained.pth", num_labels=3, dtype=torch.bfloat16, **CONFIG)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_without_pooling_its_norm_is_kept(files):
    model = CLASSIFIER.from_original(files / "pretrained.pth", num_labels=3, use_mean_pooling=False, **CONFIG)
    original = read(files / "pretrained.pth")["model"]
    assert model.fc_norm is None
    assert torch.equal(model.videomae.layernorm.weight, original["encoder.norm.weight"])


def test_its_directory_says_so_and_goes_back_as_a_fine_tuned_file(files):
    convert_checkpoint(
        files / "pretrained.pth", files / "out", model_class=CLASSIFIER, id2label={0: "a", 1: "b"}, **CONFIG
    )
    noted = json.loads((files / "out/provenance.json").read_text())
    assert noted["initialized"] == ["fc_norm", "classifier"]
    assert "New, and to be trained: `fc_norm`, `classifier`." in (files / "out/README.md").read_text()
    model = AutoModelForVideoClassification.from_pretrained(files / "out")
    assert type(model) is CLASSIFIER and model.config.id2label == {0: "a", 1: "b"}
    assert all(report.passed for report in verify_directory(files / "out", source=files / "pretrained.pth"))
    assert reverse_directory(files / "out", files / "back.pth") == {}
    back = read(files / "back.pth")["model"]
    assert {name: tuple(tensor.shape) for name, tensor in back.items()} == finetuned(labels=2)
    assert torch.equal(back["head.weight"], model.classifier.weight)
    assert type(load_original(files / "back.pth", **FIELDS)) is CLASSIFIER


def test_the_number_of_labels_must_be_said(files):
    with pytest.raises(ConversionError, match="don't tell num_labels"):
        CLASSIFIER.from_original(files / "pretrained.pth", **CONFIG)


def test_the_encoder_alone(files):
    """Of a pre-trained file with its norm, of a fine-tuned one without."""
    original = read(files / "pretrained.pth")["model"]
    model = vidformers.VideoMAEModel.from_original(files / "pretrained.pth", **CONFIG)
    assert torch.equal(model.layernorm.weight, original["encoder.norm.weight"])
    whole = load_original(files / "pretrained.pth", **CONFIG)
    video = torch.randn(1, 4, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(model(video).last_hidden_state, whole.videomae(video).last_hidden_state)
    assert vidformers.VideoMAEModel.from_original(files / "finetuned.pth", **FIELDS).layernorm is None
    convert_checkpoint(files / "pretrained.pth", files / "out", model_class=vidformers.VideoMAEModel, **CONFIG)
    not_given = reverse_directory(files / "out", files / "back.pth")
    assert set(not_given.values()) == {"the decoder, which pre-training alone uses"}
    kept = {name: tensor for name, tensor in original.items() if name.startswith("encoder.")}
    equal(read(files / "back.pth")["model"], kept)


def test_pretraining_by_transformers_with_pooling_has_no_norm(files):
    """Directories that transformers trained so go back to a file without it, and come again."""
    config = {**CONFIG, "use_mean_pooling": True, "use_pretraining_norm": False, "patch_size": 8, "hidden_size": 24}
    model = vidformers.VideoMAEForPreTraining(vidformers.VideoMAEConfig(**config, decoder_hidden_size=16))
    model.save_pretrained(files / "plain")
    assert reverse_directory(files / "plain", files / "back.pth") == {}
    assert "encoder.norm.weight" not in read(files / "back.pth")["model"]
    again = load_original(files / "back.pth", **CONFIG)
    assert again.videomae.layernorm is None and again.config.use_mean_pooling


# ---------------------------------------------------------------------------------------------------------- bad input


class Arguments(argparse.Namespace):
    """A class of the user's, which a pickle names; no weights need it."""


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("what", ["a class that extends the admitted one", "code", "code inside the admitted one"])
def test_other_pickles_are_refused_and_not_run(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    arguments = {
        "a class that extends the admitted one": Arguments(model="vit"),
        "code": Malicious(),
        "code inside the admitted one": argparse.Namespace(model=Malicious()),
    }[what]
    torch.save({**tree(finetuned()), "args": arguments}, "vit.pth")
    before = listing(tmp_path)
    with pytest.raises(ConversionError, match=r"vit\.pth: refused, nothing in it was run.*(Arguments|system)"):
        convert_checkpoint("vit.pth", "out", **FIELDS)
    assert listing(tmp_path) == before


def test_admitting_a_class_is_over_when_the_file_is_read(files):
    load_original(files / "finetuned.pth", **FIELDS)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


BAD_FILES = {
    "missing": (
        finetuned,
        lambda part: part.pop("blocks.1.norm2.bias"),
        r"1 tensor\(s\) don't fit.*model: blocks\.1\.norm2\.bias: missing \(expected shape \[24\]\)",
    ),
    "missing one of two biases": (
        finetuned,
        lambda part: part.pop("blocks.1.attn.v_bias"),
        r"blocks\.1\.attn\.v_bias: missing",
    ),
    "missing head": (finetuned, lambda part: part.pop("head.weight"), "VideoMAE fine-tuned file: .*lacks head.weight"),
    "extra": (
        finetuned,
        lambda part: part.update({"cls_token": torch.zeros(1, 1, 24)}),
        r"model: cls_token: not expected \(found shape \[1, 1, 24\]\)",
    ),
    "both norms": (
        finetuned,
        lambda part: part.update(random_tensors(norm("norm", 24), 0)),
        r"fc_norm\.weight: not expected",
    ),
    "misshapen": (
        finetuned,
        lambda part: part.update({"blocks.0.mlp.fc2.weight": torch.zeros(24, 12)}),
        r"blocks\.0\.mlp\.fc2\.weight: expected shape \[24, 48\], found shape \[24, 12\]",
    ),
    "positions of another size": (
        finetuned,
        lambda part: part.update({"pos_embed": torch.zeros(1, 9, 24)}),
        r"pos_embed: expected shape \[1, 8, 24\], found shape \[1, 9, 24\]",
    ),
    "a gap": (
        finetuned,
        lambda part: [part.pop(name) for name in list(part) if name.startswith("blocks.0.")],
        r"model: blocks\.0\.mlp\.fc1\.weight is missing, and sizes of the model are read from it",
    ),
    "no mask token": (
        pretrained,
        lambda part: part.pop("mask_token"),
        "model: mask_token is missing, and sizes of the model are read from it",
    ),
    "decoder of another patch": (
        pretrained,
        lambda part: part.update(random_tensors(linear("decoder.head", 96, 16), 0)),
        r"decoder\.head\.weight: expected shape \[384, 16\], found shape \[96, 16\]",
    ),
    "half a decoder": (
        pretrained,
        lambda part: part.pop("decoder.blocks.0.attn.qkv.weight"),
        r"decoder\.blocks\.0\.attn\.qkv\.weight: missing",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_do_not_fit(tmp_path, name):
    shapes, change, message = BAD_FILES[name]
    broken = tree(shapes())
    change(broken["model"])
    torch.save(broken, tmp_path / "vit.pth")
    before, is_finetuned = listing(tmp_path), shapes is finetuned
    kind = CLASSIFIER if is_finetuned else vidformers.VideoMAEForPreTraining
    with pytest.raises(ConversionError, match=f"(?s)vit.pth: .*{message}"):
        convert_checkpoint(tmp_path / "vit.pth", tmp_path / "out", family="videomae", **CONFIG)
    with pytest.raises(ConversionError, match="vit.pth: "):
        kind.from_original(tmp_path / "vit.pth", **CONFIG)
    assert listing(tmp_path) == before


BAD_REQUESTS = {
    "lacking": ({"num_attention_heads": None, "image_size": None}, "don't tell num_attention_heads, image_size. Give"),
    "labels": ({"num_labels": 400}, "num_labels=400 was given, but the file's tensors say 5"),
    "pooling": ({"use_mean_pooling": False}, "use_mean_pooling=False was given, but the file's tensors say True"),
    "layer scale": ({"layer_scale_init_value": 0.1}, r"layer_scale_init_value=0\.1 was given, but .* say 0\.0"),
    "biases": ({"qv_bias": False}, "qv_bias=False was given, but the file's tensors say True"),
    "patches": ({"patch_size": 16}, "patch_size=16 was given, but the file's tensors say 8"),
    "positions": (
        {"use_learnable_pos_emb": True},
        "use_learnable_pos_emb=True was given, but the file's tensors say False",
    ),
    "preset": (
        {"preset": "videomae-base-k400-1600e-finetuned"},
        "hidden_size=768 was given, but the file's tensors say 24",
    ),
    "preset of the other kind": (
        {"preset": "videomae-base-k400-1600e"},
        r"pre-training file: known by encoder_to_decoder\.weight",
    ),
    "unknown preset": (
        {"preset": "videomae-base-k400"},
        r"unknown preset 'videomae-base-k400'; did you mean videomae-base-",
    ),
    "heads": ({"num_attention_heads": 5}, r"`hidden_size` \(24\) must be a multiple of `num_attention_heads` \(5\)"),
    "unknown field": ({"mask_ratio": 0.9}, r"VideoMAEConfig has no field 'mask_ratio'"),
    "entry": ({"checkpoint_key": "module"}, r"has no entry 'module'; it holds 'model', .*such as 'model'"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_requests_that_cannot_be_met(files, name):
    change, message = BAD_REQUESTS[name]
    before = listing(files)
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        convert_checkpoint(files / "finetuned.pth", files / "out", **{**FIELDS, **change})
    assert listing(files) == before


def test_a_pretrained_model_from_a_fine_tuned_file(files):
    with pytest.raises(
        ConversionError, match="(?s)finetuned.pth: not recognized; .*known by encoder_to_decoder.weight"
    ):
        vidformers.VideoMAEForPreTraining.from_original(files / "finetuned.pth", **CONFIG)


def test_a_folder_that_is_no_original_repository(files):
    with pytest.raises(ConversionError, match=r"it lacks modeling_finetune\.py, modeling_pretrain\.py\."):
        convert_checkpoint(files / "finetuned.pth", files / "out", original_repo=files, **FIELDS)
    assert not (files / "out").exists()


# ----------------------------------------------------------------------------------------------------------- goldens


@pytest.mark.parametrize(
    "name",
    [
        name if (COMMITTED / "videomae" / name).is_dir() else pytest.param(name, marks=pytest.mark.slow)
        for name in GOLDENS
    ],
)
def test_golden_files_convert_and_come_back(tmp_path, name):
    folder = GOLDENS[name]
    given = json.loads((folder / "case.json").read_text())["hyperparameters"]
    fields = {
        "num_attention_heads": given.get("num_heads", given.get("encoder_num_heads")),
        "image_size": given["img_size"],
        "num_frames": given.get("all_frames", given.get("num_frames")),
    }
    if "decoder_num_heads" in given:
        fields["decoder_num_attention_heads"] = given["decoder_num_heads"]
    reports = convert_checkpoint(folder / "checkpoint.pt", tmp_path / "out", **fields)
    assert all(report.passed for report in reports)
    assert reverse_directory(tmp_path / "out", tmp_path / "back.pt") == {}
    original, back = read(folder / "checkpoint.pt"), read(tmp_path / "back.pt")
    ((entry, state),) = back.items()
    equal(state, original[entry])


# ------------------------------------------------------------------------------------------------------------ command


def run(*arguments, expect: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result.output


SETTINGS = [part for name, value in CONFIG.items() for part in ("--set", f"{name}={value}")]


def test_command(files):
    (files / "labels.txt").write_text("\n".join("abcde"))
    output = run("convert", files / "finetuned.pth", files / "out", "--labels", files / "labels.txt", *SETTINGS)
    assert "✓ tensors of the original files: 36 compared" in output
    config = vidformers.VideoMAEConfig.from_pretrained(files / "out")
    assert config.id2label[4] == "e" and config.label2id["b"] == 1
    for auto in (AutoVideoProcessor, AutoImageProcessor):
        processor = auto.from_pretrained(files / "out")
        assert (processor.crop_size["height"], processor.size["shortest_edge"], processor.num_frames) == (16, 16, 4)
    assert "✓ tensors of" in run("verify", files / "out", "--source", files / "finetuned.pth")
    assert "✗ tensors of" in run("verify", files / "out", "--source", changed(files / "finetuned.pth"), expect=1)
    run("reverse", files / "out", files / "back.pth")
    equal(read(files / "back.pth")["model"], read(files / "finetuned.pth")["model"])
    (files / "labels.txt").write_text("a\nb")
    output = run(
        "convert", files / "finetuned.pth", files / "no", "--labels", files / "labels.txt", *SETTINGS, expect=1
    )
    assert "num_labels=2 was given, but the file's tensors say 5" in output and not (files / "no").exists()


def changed(path: Path) -> Path:
    other = read(path)
    other["model"]["head.bias"] += 1
    torch.save(other, path.with_name("other.pth"))
    return path.with_name("other.pth")


def test_command_for_a_classifier_to_fine_tune(files):
    (files / "labels.json").write_text('["jump", "run"]')
    options = ["--model-class", "VideoMAEForVideoClassification", "--labels", files / "labels.json"]
    run("convert", files / "pretrained.pth", files / "out", *options, *SETTINGS)
    assert CLASSIFIER.from_pretrained(files / "out").config.id2label == {0: "jump", 1: "run"}
    options[1] = "VideoMAEForClassification"
    output = run("convert", files / "pretrained.pth", files / "no", *options, *SETTINGS, expect=1)
    assert "unknown model class 'VideoMAEForClassification'; did you mean" in output


def test_command_lists_presets_of_the_model_zoo():
    output = run("list")
    assert "VideoMAE (--family videomae)" in output and output.count("videomae-") == 18 + 18
    assert "12 × 768" in output and "16 × 224²" in output
