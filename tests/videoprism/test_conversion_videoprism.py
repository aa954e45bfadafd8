"""VideoPrism: original files to models and directories, and back."""

import json
import os
import re
import unittest
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoProcessor, AutoTokenizer
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

import vidformers
from tests.commands.test_cli import run
from tests.harness.conversion import ConversionMixin
from tests.original_files import random_tensors
from tests.text_files import sentencepiece_model, t5_model
from tests.videoprism.spec import SPEC
from vidformers.conversion import (
    ConversionError,
    convert_checkpoint,
    load,
    load_original,
    reverse_directory,
    verify_directory,
)
from vidformers.conversion.rules import check_ours, check_theirs, convert, forms_of
from vidformers.families import FAMILIES


VIDEOPRISM = FAMILIES["videoprism"]
GOLDENS = Path(os.environ.get("VIDFORMERS_GOLDENS", "")) / "videoprism"
needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason="VIDFORMERS_GOLDENS names no folder with videoprism")


class VideoPrismConversionTest(ConversionMixin, unittest.TestCase):
    """The tests that all families share."""

    spec = SPEC


# ------------------------------------------------- trees, from videoprism/encoders.py and layers.py of the original


def norm(name: str, *shape: int) -> dict:
    return {f"{name}/scale": shape, f"{name}/bias": shape}


def attention(name: str, width: int, heads: int, head_dim: int, count: tuple[int, ...] = ()) -> dict:
    shapes = {f"{name}/post/w": (*count, width, heads, head_dim), f"{name}/post/b": (*count, width)}
    for projection in ("query", "key", "value"):
        shapes[f"{name}/{projection}/w"] = (*count, width, heads, head_dim)
        shapes[f"{name}/{projection}/b"] = (*count, heads, head_dim)
    return shapes


def block(name: str, width: int, heads: int, mlp: int, hybrid: bool, count: tuple[int, ...] = ()) -> dict:
    shapes = attention(f"{name}/self_attention", width, heads, width // heads, count)
    for norms in (name, f"{name}/ff_layer"):
        for leaf in ("pre_layer_norm", "post_layer_norm") if hybrid else ("layer_norm",):
            shapes |= norm(f"{norms}/{leaf}", *count, width)
    for layer, (rows, columns) in {"ffn_layer1": (width, mlp), "ffn_layer2": (mlp, width)}.items():
        shapes[f"{name}/ff_layer/{layer}/linear/kernel"] = (*count, rows, columns)
        shapes[f"{name}/ff_layer/{layer}/linear/bias"] = (*count, columns)
    return shapes


def stack(name: str, depth: int, width: int, heads: int, mlp: int, scan: bool, hybrid: bool = False) -> dict:
    if scan:
        return block(f"{name}/x_layers", width, heads, mlp, hybrid, (depth,))
    blocks = [block(f"{name}/x_layers_{index}", width, heads, mlp, hybrid) for index in range(depth)]
    return {name: shape for shapes in blocks for name, shape in shapes.items()}


def encoder(name: str, width=24, heads=3, mlp=40, spatial=3, temporal=2, table=(5, 2, 2), patch=4, scan=True) -> dict:
    frames, rows, columns = table
    return {
        f"{name}/patch_projection/linear/kernel": (patch * patch * 3, width),
        f"{name}/patch_projection/linear/bias": (width,),
        f"{name}/spatial_pos_emb/emb_var": (rows * columns, width),
        f"{name}/temporal_pos_emb/emb_var": (frames, width),
        **norm(f"{name}/spatial_ln", width),
        **norm(f"{name}/temporal_ln", width),
        **stack(f"{name}/spatial_encoder/transformers_stack", spatial, width, heads, mlp, scan),
        **stack(f"{name}/temporal_encoder/transformers_stack", temporal, width, heads, mlp, scan),
    }


def pooler(name: str, width: int, heads: int, head_dim: int, queries: int = 1) -> dict:
    return {
        f"{name}/pooling_attention_query": (queries, width),
        f"{name}/pooling_attention/per_dim_scale/per_dim_scale": (head_dim,),
        **attention(f"{name}/pooling_attention", width, heads, head_dim),
        **norm(f"{name}/pooling_attention_layer_norm", width),
    }


def clip(
    width=24, heads=3, mlp=40, auxiliary=2, text=3, vocab=150, hybrid=False, queries=1, scan=True, **sizes
) -> dict:
    shapes = {
        **encoder("params/vision_encoder", width, heads, mlp, scan=scan, **sizes),
        **pooler("params/contrastive_vision_pooler", width, heads, 4 * width // heads, queries),
        "params/text_encoder/token_emb/emb_var": (vocab, width),
        "params/text_encoder/cls_emb": (1, 1, width),
        **norm("params/text_encoder/unimodal_ln", width),
        **stack("params/text_encoder/unimodal_transformer", text, width, heads, 4 * width, scan, hybrid),
    }
    if auxiliary:
        shapes |= stack("params/auxiliary_encoder/transformers_stack", auxiliary, width, heads, mlp, scan)
    return shapes


def classifier(width=24, heads=3, classes=7, **sizes) -> dict:
    return {
        **encoder("params/encoder", width, heads, **sizes),
        **pooler("params/atten_pooler", width, heads, width // heads),
        "params/projection/linear/kernel": (width, classes),
        "params/projection/linear/bias": (classes,),
    }


TREES = {
    "VideoPrismVisionModel": lambda **sizes: encoder("params", **sizes),
    "VideoPrismForVideoClassification": classifier,
    "VideoPrismClipModel": clip,
}
kinds = pytest.mark.parametrize("kind", TREES)
forms = pytest.mark.parametrize("scan", [True, False], ids=["scanned", "block by block"])


def write(path: Path, shapes: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays as an archive."""
    arrays = {name: tensor.numpy() for name, tensor in random_tensors(shapes, seed).items()}
    np.savez(path, **arrays)
    return arrays


def same_archive(path: Path, expected: dict[str, np.ndarray]) -> None:
    with np.load(path, allow_pickle=False) as found:
        assert set(found.files) == set(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype and np.array_equal(found[name], array), name


# ------------------------------------------------------------------------------------------------------ load_original


@kinds
@forms
def test_the_tree_tells_the_class_and_the_sizes(tmp_path, kind, scan):
    write(tmp_path / "flax.npz", TREES[kind](scan=scan))
    model = load_original(tmp_path / "flax.npz")
    assert type(model) is getattr(vidformers, kind) and not model.training
    vision = getattr(model.config, "vision_config", model.config)
    assert (vision.hidden_size, vision.num_attention_heads, vision.intermediate_size) == (24, 3, 40)
    assert (vision.num_spatial_layers, vision.num_temporal_layers, vision.num_frames) == (3, 2, 5)
    assert (vision.image_size, list(vision.tubelet_size)) == (8, [1, 4, 4])
    if kind == "VideoPrismClipModel":
        text = model.config.text_config
        assert (vision.num_auxiliary_layers, vision.pooler_head_dim, vision.num_pooling_queries) == (2, 32, 1)
        assert (text.vocab_size, text.hidden_size, text.intermediate_size) == (150, 24, 96)
        assert (text.num_hidden_layers, text.num_attention_heads, text.norm_policy) == (3, 3, "pre")
    if kind == "VideoPrismForVideoClassification":
        assert (vision.num_labels, vision.pooler_head_dim) == (7, 8)


@forms
@pytest.mark.parametrize("sizes", [{"auxiliary": 0}, {"hybrid": True, "auxiliary": 1}])
def test_other_video_text_models(tmp_path, sizes, scan):
    arrays = write(tmp_path / "flax.npz", clip(scan=scan, **sizes))
    model = load_original(tmp_path / "flax.npz")
    vision, text = model.config.vision_config, model.config.text_config
    assert vision.num_auxiliary_layers == sizes.get("auxiliary", 2) == len(model.video_model.auxiliary_layers)
    assert type(vision.num_auxiliary_layers) is int
    assert text.norm_policy == ("primer_hybrid" if "hybrid" in sizes else "pre")
    assert sum(tensor.numel() for tensor in model.parameters()) == sum(array.size for array in arrays.values())


@forms
def test_several_queries(tmp_path, scan):
    write(tmp_path / "flax.npz", clip(queries=3, scan=scan))
    model = load_original(tmp_path / "flax.npz", model_class=vidformers.VideoPrismVideoModel)
    assert model.config.num_pooling_queries == 3 and model.head.pooling_attention_query.shape == (1, 3, 24)
    with pytest.raises(ConversionError, match="VideoPrismClipModel cannot be built .*num_pooling_queries` is 3"):
        load_original(tmp_path / "flax.npz")


def test_tables_that_are_not_square_need_their_shape(tmp_path):
    write(tmp_path / "flax.npz", TREES["VideoPrismVisionModel"](table=(5, 2, 3)))
    with pytest.raises(ConversionError, match="its tensors don't tell image_size. Give them, or the preset"):
        load_original(tmp_path / "flax.npz")
    model = load_original(tmp_path / "flax.npz", image_size=[8, 12])
    assert model.config.position_grid == (2, 3)
    write(tmp_path / "clip.npz", clip(table=(5, 2, 3)))
    with pytest.raises(ConversionError, match=r"don't tell vision_config\.image_size"):
        load_original(tmp_path / "clip.npz")
    config = {"vision_config": {"image_size": [12, 8], "attn_logit_softcapping": 0.0}}
    vision = load_original(tmp_path / "clip.npz", **config).config.vision_config
    assert vision.position_grid == (3, 2) and vision.attn_logit_softcapping == 0


@pytest.mark.parametrize("name", ["VideoPrismVideoModel", "VideoPrismTextModel"])
@forms
def test_a_tower_alone(tmp_path, name, scan):
    write(tmp_path / "flax.npz", clip(scan=scan))
    whole = load_original(tmp_path / "flax.npz")
    model = getattr(vidformers, name).from_original(tmp_path / "flax.npz")
    assert type(model) is getattr(vidformers, name)
    tower = whole.video_model if name == "VideoPrismVideoModel" else whole.text_model
    assert all(torch.equal(tensor, tower.state_dict()[key]) for key, tensor in model.state_dict().items())


def test_arrays_arrive_where_they_belong(tmp_path):
    """Written out by hand wherever a wrong order would keep names and shapes."""
    arrays = write(tmp_path / "flax.npz", clip(width=16, heads=4, mlp=64, vocab=40, hybrid=True))
    model = load_original(tmp_path / "flax.npz")
    tree = {name.removeprefix("params/"): torch.from_numpy(array) for name, array in arrays.items()}
    embeddings = model.video_model.vision_model.spatial_embeddings.patch_embeddings.projection
    kernel = tree["vision_encoder/patch_projection/linear/kernel"].reshape(4, 4, 3, 16)  # (rows, columns, RGB, width)
    assert torch.equal(embeddings.weight[7, 2, 0, 1, 3], kernel[1, 3, 2, 7])
    stacks = {
        "vision_encoder/spatial_encoder/transformers_stack": model.video_model.vision_model.spatial_layers,
        "vision_encoder/temporal_encoder/transformers_stack": model.video_model.vision_model.temporal_layers,
        "auxiliary_encoder/transformers_stack": model.video_model.auxiliary_layers,
        "text_encoder/unimodal_transformer": model.text_model.layers,
    }
    for name, layers in stacks.items():
        source = {key.removeprefix(f"{name}/x_layers/"): value[1] for key, value in tree.items() if name in key}
        layer, first = layers[1], "pre_layer_norm" if "text" in name else "layer_norm"
        for ours, theirs in (("q", "query"), ("k", "key"), ("v", "value")):
            projection = getattr(layer.attention, f"{ours}_proj")
            weight, bias = (source[f"self_attention/{theirs}/{leaf}"] for leaf in ("w", "b"))
            # (input 5) → (head 2, channel 3), which is row 2 · 4 + 3 of ours
            assert torch.equal(projection.weight[11, 5], weight[5, 2, 3]) and torch.equal(
                projection.bias[11], bias[2, 3]
            )
        assert torch.equal(layer.attention.o_proj.weight[5, 11], source["self_attention/post/w"][5, 2, 3])
        assert torch.equal(layer.mlp.fc1.weight[30, 5], source["ff_layer/ffn_layer1/linear/kernel"][5, 30])
        assert torch.equal(layer.mlp.fc2.weight[5, 30], source["ff_layer/ffn_layer2/linear/kernel"][30, 5])
        assert torch.equal(layer.layernorm_before.weight, source[f"{first}/scale"])
        assert torch.equal(layer.layernorm_after.weight, source[f"ff_layer/{first}/scale"])
        if "text" in name:
            assert torch.equal(layer.attention_post_layernorm.weight, source["post_layer_norm/scale"])
            assert torch.equal(layer.mlp_post_layernorm.bias, source["ff_layer/post_layer_norm/bias"])
    encoder = model.video_model.vision_model
    assert torch.equal(encoder.layernorm1.bias, tree["vision_encoder/spatial_ln/bias"])
    assert torch.equal(encoder.layernorm2.bias, tree["vision_encoder/temporal_ln/bias"])


def test_block_by_block_is_the_same_model(tmp_path):
    scanned = write(tmp_path / "scanned.npz", clip())
    blocks = {}
    for name, array in scanned.items():
        if "/x_layers/" in name:
            blocks |= {name.replace("x_layers", f"x_layers_{index}"): part for index, part in enumerate(array)}
        else:
            blocks[name] = array
    np.savez(tmp_path / "blocks.npz", **blocks)
    expected, found = (load_original(tmp_path / f"{name}.npz").state_dict() for name in ("scanned", "blocks"))
    assert set(expected) == set(found) and all(torch.equal(expected[name], found[name]) for name in expected)


# ------------------------------------------------------------------------------------------------ rules and presets


@pytest.mark.parametrize("preset", VIDEOPRISM.presets)
def test_the_rules_make_exactly_the_tensors_of_every_preset(preset):
    record = VIDEOPRISM.presets[preset]
    model_class = getattr(vidformers, record.architecture)
    model = load.empty_model(model_class, model_class.config_class(**record.config))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    vision = record.config.get("vision_config", record.config)
    sizes = {
        "width": vision["hidden_size"],
        "heads": vision["num_attention_heads"],
        "mlp": vision["intermediate_size"],
    }
    sizes |= {
        "spatial": vision["num_spatial_layers"],
        "temporal": 4,
        "table": (vision["num_frames"], 16, 16),
        "patch": 18,
    }
    if "text_config" in record.config:
        text = record.config["text_config"]
        sizes |= {"text": text["num_hidden_layers"], "vocab": 32000, "hybrid": "giant" in preset}
    original = TREES[record.architecture](**sizes)
    form = next(form for form in forms_of("videoprism") if form.architecture == record.architecture)
    rules = list(form.rules(model.config))
    found = {name.removeprefix("params/"): shape for name, shape in original.items()}
    assert form.title.endswith(", scanned layers") and set(form.fingerprint) <= set(found)
    assert check_ours(rules, shapes) == [] and not any(check_theirs(rules, found, shapes).values())


@kinds
@forms
def test_every_original_array_moves_exactly_its_own_targets(tmp_path, kind, scan):
    write(tmp_path / "flax.npz", TREES[kind](scan=scan))
    with load.planned(tmp_path / "flax.npz", None, load.Request()) as plan:
        originals = {name: plan.found.read(name).clone() for name in plan.found.shapes}
        before = dict(convert(plan.rules, originals.__getitem__))
        for entry in plan.rules:
            (name,) = entry.theirs
            after = dict(convert(plan.rules, {**originals, name: originals[name] + 1}.__getitem__))
            changed = [ours for ours in before if not torch.equal(before[ours], after[ours])]
            assert sorted(changed) == sorted(entry.ours), name


# ----------------------------------------------------------------------------------------------------------- bad input


DAMAGES = {
    "missing": (
        lambda tree: tree.pop("params/spatial_ln/bias"),
        r"1 tensor\(s\) don't fit.*params: spatial_ln/bias: missing \(expected shape \[24\]\)",
    ),
    "extra": (
        lambda tree: tree.update({"params/head/w": np.zeros(3, np.float32)}),
        r"params: head/w: not expected \(found shape \[3\]\)",
    ),
    "misshapen": (
        lambda tree: tree.update({"params/temporal_ln/scale": np.zeros(23, np.float32)}),
        r"params: temporal_ln/scale: expected shape \[24\], found shape \[23\]",
    ),
    "one block too few": (
        lambda tree: tree.update(
            {
                name: array[:2]
                for name, array in tree.items()
                if name.endswith("spatial_encoder/transformers_stack/x_layers/layer_norm/scale")
            }
        ),
        r"x_layers/layer_norm/scale: expected shape \[3, 24\], found shape \[2, 24\]",
    ),
    "objects": (
        lambda tree: tree.update({"params/spatial_ln/bias": np.array([None, {}], dtype=object)}),
        r"holds values of type object, which is no tensor",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_trees_that_do_not_fit(tmp_path, name):
    change, message = DAMAGES[name]
    tree = write(tmp_path / "flax.npz", TREES["VideoPrismVisionModel"]())
    change(tree)
    np.savez(tmp_path / "flax.npz", **tree)
    with pytest.raises(ConversionError, match=f"(?s)flax.npz: .*{message}"):
        load_original(tmp_path / "flax.npz", family="videoprism")


@pytest.mark.slow
@forms
def test_a_video_text_model_that_lacks_one_tensor_is_no_tower(tmp_path, scan):
    """Whichever it is, and the message names it; of tensors that differ in numbers alone, one."""
    arrays = write(tmp_path / "whole.npz", clip(width=12, spatial=2, vocab=20, scan=scan))
    assert len(arrays) == (88 if scan else 168)
    for name in {re.sub(r"\d+", "", name): name for name in arrays}.values():
        np.savez(tmp_path / "flax.npz", **{other: array for other, array in arrays.items() if other != name})
        with pytest.raises(ConversionError, match=re.escape(name.removeprefix("params/"))):
            load_original(tmp_path / "flax.npz")


def test_a_tower_that_stands_alone_is_that_tower(tmp_path):
    """A directory of one tower, reversed, and converted again without a word."""
    write(tmp_path / "flax.npz", clip())
    for model_class in (vidformers.VideoPrismVideoModel, vidformers.VideoPrismTextModel):
        name = model_class.__name__
        convert_checkpoint(tmp_path / "flax.npz", tmp_path / name, model_class=model_class)
        reverse_directory(tmp_path / name, tmp_path / f"{name}.npz")
        assert type(load_original(tmp_path / f"{name}.npz")) is model_class


def test_a_part_that_nothing_knows(tmp_path):
    write(tmp_path / "flax.npz", {**clip(), "params/audio_encoder/w": (3,)})
    for model_class in (vidformers.VideoPrismClipModel, vidformers.VideoPrismTextModel):
        with pytest.raises(ConversionError, match=r"params: audio_encoder/w: not expected \(found shape \[3\]\)"):
            load_original(tmp_path / "flax.npz", model_class=model_class)


def test_a_truncated_archive(tmp_path):
    write(tmp_path / "flax.npz", clip())
    data = (tmp_path / "flax.npz").read_bytes()
    (tmp_path / "flax.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ConversionError, match=r"flax.npz: truncated, damaged, or not a \.npz checkpoint"):
        load_original(tmp_path / "flax.npz")


BAD_REQUESTS = {
    "contradiction": (
        {"vision_config": {"hidden_size": 32}},
        r"vision_config.hidden_size=32 was given, but .* say 24",
    ),
    "count": ({"vision_config": {"num_auxiliary_layers": 1}}, r"num_auxiliary_layers=1 was given, but .* say 2"),
    "policy": (
        {"text_config": {"norm_policy": "primer_hybrid"}},
        r"norm_policy='primer_hybrid' was given.* say 'pre'",
    ),
    "size": ({"vision_config": {"image_size": [8, 12]}}, r"image_size=\[8, 12\] was given, but .* say 8"),
    "unknown": ({"text_config": {"heads": 3}}, "VideoPrismTextConfig has no field 'heads'"),
    "preset": ({"preset": "videoprism-lvt-base-f16r288"}, r"hidden_size=768 was given, but .* say 24; .*more fields"),
    "other preset": (
        {"preset": "videoprism-base-f16r288"},
        "VideoPrism encoder, scanned layers: known by spatial_encoder/",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_requests_that_cannot_be_met(tmp_path, name):
    change, message = BAD_REQUESTS[name]
    write(tmp_path / "flax.npz", clip())
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        load_original(tmp_path / "flax.npz", **change)


def test_no_auxiliary_blocks_against_the_users_word(tmp_path):
    write(tmp_path / "flax.npz", clip(auxiliary=0))
    with pytest.raises(ConversionError, match="num_auxiliary_layers=2 was given, but .* say 0"):
        load_original(tmp_path / "flax.npz", vision_config={"num_auxiliary_layers": 2})


# --------------------------------------------------------------------------------------------- directories, and back


@kinds
@forms
def test_directories_load_and_give_the_archive_back(tmp_path, kind, scan):
    arrays = write(tmp_path / "flax.npz", TREES[kind](scan=scan))
    reports = convert_checkpoint(tmp_path / "flax.npz", tmp_path / "out")
    assert [report.title for report in reports] == ["tensors of the original files", "reloaded directory"]
    assert all(report.passed for report in reports)
    assert all(report.passed for report in verify_directory(tmp_path / "out", source=tmp_path / "flax.npz"))
    processor = AutoVideoProcessor.from_pretrained(tmp_path / "out")
    assert (processor.num_frames, processor.size["height"], processor.size["width"]) == (5, 8, 8)
    assert reverse_directory(tmp_path / "out", tmp_path / "back.npz") == {}
    same_archive(tmp_path / "back.npz", arrays)


def test_directories_without_provenance_are_reversed_in_the_published_form(tmp_path):
    arrays = write(tmp_path / "flax.npz", clip())
    load_original(tmp_path / "flax.npz").save_pretrained(tmp_path / "plain")
    reverse_directory(tmp_path / "plain", tmp_path / "back.npz")
    same_archive(tmp_path / "back.npz", arrays)


def test_a_learned_temperature_is_not_given_back(tmp_path):
    write(tmp_path / "flax.npz", clip())
    config = load_original(tmp_path / "flax.npz").config
    config.logit_scale_init_value = 1.0
    vidformers.VideoPrismClipModel(config).save_pretrained(tmp_path / "plain")
    not_given = reverse_directory(tmp_path / "plain", tmp_path / "back.npz")
    assert not_given == {"logit_scale": "the original has no such tensor"}
    assert load_original(tmp_path / "back.npz", logit_scale_init_value=1.5).logit_scale.item() == 1.5
    assert load_original(tmp_path / "back.npz").logit_scale is None


def test_types_that_archives_lack(tmp_path):
    write(tmp_path / "flax.npz", encoder("params"))
    load_original(tmp_path / "flax.npz", dtype=torch.bfloat16).save_pretrained(tmp_path / "plain")
    with pytest.raises(ConversionError, match="back.npz: cannot be written .*BFloat16"):
        reverse_directory(tmp_path / "plain", tmp_path / "back.npz")
    assert not list(tmp_path.glob("*back*"))


def test_half_precision_directories_give_the_archives_type_back(tmp_path):
    arrays = write(tmp_path / "flax.npz", encoder("params"))
    convert_checkpoint(tmp_path / "flax.npz", tmp_path / "out", dtype=torch.bfloat16)
    reverse_directory(tmp_path / "out", tmp_path / "back.npz")
    rounded = {name: torch.from_numpy(array).bfloat16().float().numpy() for name, array in arrays.items()}
    same_archive(tmp_path / "back.npz", rounded)


# ---------------------------------------------------------------------------------------------------------- tokenizer


@pytest.fixture
def spm(tmp_path) -> Path:
    (tmp_path / "spm.model").write_bytes(t5_model())
    return tmp_path / "spm.model"


def test_a_directory_with_a_processor(tmp_path, spm):
    write(tmp_path / "flax.npz", clip())
    output = run("convert", tmp_path / "flax.npz", tmp_path / "out", "--tokenizer", spm)
    assert "Wrote" in output
    processor, model = (auto.from_pretrained(tmp_path / "out") for auto in (AutoProcessor, AutoModel))
    assert type(processor) is vidformers.VideoPrismProcessor and type(model) is vidformers.VideoPrismClipModel
    video = np.random.default_rng(0).integers(0, 256, (9, 20, 30, 3), dtype=np.uint8)
    batch = processor(text=["A dog runs!", "a cat"], videos=video, return_tensors="pt")
    assert model(**batch).similarity_logits_per_video.shape == (1, 2)
    noted = json.loads((tmp_path / "out/provenance.json").read_text())["tokenizer"]
    assert noted["file"] == "spm.model" and len(noted["sha256"]) == 64
    card = (tmp_path / "out/README.md").read_text()
    assert "processor = AutoProcessor.from_pretrained(directory)" in card and "AutoModel.from_pretrained(dir" in card


def test_a_saved_tokenizer_serves_as_well(tmp_path, spm):
    write(tmp_path / "flax.npz", clip())
    vidformers.VideoPrismTokenizer(spm).save_pretrained(tmp_path / "tokenizer")
    convert_checkpoint(tmp_path / "flax.npz", tmp_path / "out", tokenizer=tmp_path / "tokenizer/tokenizer.json")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert loaded("A dog!")["input_ids"] == vidformers.VideoPrismTokenizer(spm)("A dog!")["input_ids"]


BAD_TOKENIZERS = {
    "no text": (encoder("params"), None, "VideoPrismVisionModel takes no text; leave the tokenizer out"),
    "too many": (clip(vocab=20), None, "pieces, but the model's table has 20: it was trained with another vocabulary"),
    "no file": (clip(), "none.model", "none.model: no such file; expected a sentencepiece model, a list of merges"),
    "no model": (clip(), b"text", "bad.model: is no sentencepiece model"),
    "another kind": (clip(), sentencepiece_model(model_type="bpe"), "bad.model: is no unigram model"),
}


@pytest.mark.parametrize("name", BAD_TOKENIZERS)
def test_tokenizers_that_do_not_fit(tmp_path, spm, name):
    shapes, file, message = BAD_TOKENIZERS[name]
    write(tmp_path / "flax.npz", shapes)
    path = spm if file is None else tmp_path / (file if isinstance(file, str) else "bad.model")
    if isinstance(file, bytes):
        path.write_bytes(file)
    with pytest.raises(ConversionError, match=message):
        convert_checkpoint(tmp_path / "flax.npz", tmp_path / "out", tokenizer=path)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


# ------------------------------------------------------------------------------------------------------------- goldens


@needs_goldens
@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(path.parent.name for path in GOLDENS.glob("*/checkpoint.npz")))
def test_golden_files_convert_and_come_back(tmp_path, case):
    given = json.loads((GOLDENS / case / "case.json").read_text())["hyperparameters"]
    sizes = given.get("encoder_params", given)
    _, rows, columns = sizes["pos_emb_shape"]
    config = {} if rows == columns else {"image_size": [rows * sizes["patch_size"], columns * sizes["patch_size"]]}
    source = GOLDENS / case / "checkpoint.npz"
    tokenizer = GOLDENS / "tokenization/test_spm.model" if case == "clip_tokenized" else None
    convert_checkpoint(source, tmp_path / "out", tokenizer=tokenizer, **config)
    reverse_directory(tmp_path / "out", tmp_path / "back.npz")
    with np.load(source, allow_pickle=False) as archive:
        same_archive(tmp_path / "back.npz", dict(archive))


@needs_goldens
@pytest.mark.slow
def test_a_golden_case_from_text_to_embedding(tmp_path):
    folder = GOLDENS / "clip_tokenized"
    texts = json.loads((folder / "case.json").read_text())["texts"]
    convert_checkpoint(folder / "checkpoint.npz", tmp_path / "out", tokenizer=GOLDENS / "tokenization/test_spm.model")
    model, tokenizer = (auto.from_pretrained(tmp_path / "out") for auto in (AutoModel, AutoTokenizer))
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        found = model.get_text_features(**batch).pooler_output
    expected = load_file(folder / "outputs.safetensors")["text_embeddings"]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
