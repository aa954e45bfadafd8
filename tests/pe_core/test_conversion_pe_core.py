"""PE core, lang and spatial: original files to models and directories, and back."""

import json
import unittest

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoProcessor, AutoTokenizer
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from tests.commands.test_cli import run
from tests.harness.conversion import ConversionMixin
from tests.original_files import linear, norm, random_tensors
from tests.pe_core.spec import SPEC
from vidformers import PeCoreModel, PeCoreTextModel, PeVisionModel
from vidformers.conversion import (
    ConversionError,
    convert_checkpoint,
    load_original,
    reverse_directory,
    verify_directory,
)
from vidformers.conversion.load import Request, empty_model, form_of, planned
from vidformers.conversion.rules import check_ours
from vidformers.models.pe_core.record import FAMILY as PE_CORE


class PeCoreConversionTest(ConversionMixin, unittest.TestCase):
    spec = SPEC


# --------------------------------------------------- tensors, from core/vision_encoder/pe.py of the original


def blocks(width: int, count: int, mlp: int, scaled: bool = False) -> dict:
    shapes = {}
    for index in range(count):
        name = f"transformer.resblocks.{index}"
        shapes |= {f"{name}.attn.in_proj_weight": (3 * width, width), f"{name}.attn.in_proj_bias": (3 * width,)}
        shapes |= {**linear(f"{name}.attn.out_proj", width, width), **norm(f"{name}.ln_1", width)}
        shapes |= {**linear(f"{name}.mlp.c_fc", mlp, width), **linear(f"{name}.mlp.c_proj", width, mlp)}
        shapes |= norm(f"{name}.ln_2", width)
        if scaled:
            shapes |= {f"{name}.ls_{number}.gamma": (width,) for number in (1, 2)}
    return shapes


def vision(
    width: int = 32,
    count: int = 2,
    mlp: int = 40,
    patch: int = 4,
    rows: int = 3,
    out: int | None = 20,
    cls: bool = True,
    scaled: bool = False,
) -> dict:
    """A vision tower; with `out=None` one of PE lang or PE spatial, without pooling and final norm."""
    shapes = {
        "conv1.weight": (width, 3, patch, patch),
        "positional_embedding": (rows * rows + cls, width),
        **norm("ln_pre", width),
        **blocks(width, count, mlp, scaled),
    }
    shapes |= {"class_embedding": (width,)} if cls else {}
    if out is not None:
        attention = "attn_pool.attn"
        shapes |= {"attn_pool.probe": (1, 1, width), "proj": (width, out), **norm("ln_post", width)}
        shapes |= {f"{attention}.in_proj_weight": (3 * width, width), f"{attention}.in_proj_bias": (3 * width,)}
        shapes |= {**linear(f"{attention}.out_proj", width, width), **norm("attn_pool.layernorm", width)}
        shapes |= linear("attn_pool.mlp.c_fc", 4 * width, width) | linear("attn_pool.mlp.c_proj", width, 4 * width)
    return shapes


def text(width: int = 24, count: int = 3, mlp: int = 48, vocab: int = 520, length: int = 9, out: int = 20) -> dict:
    return {
        "token_embedding.weight": (vocab, width),
        "positional_embedding": (length, width),
        "text_projection": (width, out),
        **norm("ln_final", width),
        **blocks(width, count, mlp),
    }


def clip(**sizes) -> dict:
    return {**under("visual.", vision(**sizes)), **text(), "logit_scale": ()}


def under(prefix: str, shapes: dict) -> dict:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


TREES = {"core": clip(), "no class token": clip(cls=False), "lang": vision(out=None, scaled=True)}
TREES |= {"spatial": vision(out=None), "spatial as of core": under("visual.", vision(out=None))}
TOWER_HEADS = {"num_attention_heads": 2}
HEADS = {"vision_config": TOWER_HEADS, "text_config": {"num_attention_heads": 3}}


def heads(name: str) -> dict:
    return TOWER_HEADS if name.startswith(("lang", "spatial")) else HEADS


def write(path, shapes: dict) -> dict:
    tensors = random_tensors(shapes, seed=0)
    torch.save(tensors, path)
    return tensors


def same_file(path, expected: dict) -> None:
    found = torch.load(path, weights_only=True)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name


# -------------------------------------------------------------------------------------------------- what a file is


def test_shapes_tell_the_sizes(tmp_path):
    write(tmp_path / "PE.pt", clip())
    model = load_original(tmp_path / "PE.pt", **HEADS)
    assert type(model) is PeCoreModel
    tower, words = model.config.vision_config, model.config.text_config
    assert (tower.hidden_size, tower.num_hidden_layers, tower.intermediate_size) == (32, 2, 40)
    assert (tower.patch_size, tower.image_size, tower.projection_dim, tower.num_channels) == (4, 12, 20, 3)
    assert (tower.use_cls_token, tower.use_post_norm, tower.use_attention_pooling) == (True, True, True)
    assert tower.layer_scale_init_value == 0
    assert (words.hidden_size, words.num_hidden_layers, words.intermediate_size) == (24, 3, 48)
    assert (words.vocab_size, words.max_position_embeddings, words.projection_dim) == (520, 9, 20)


def test_towers_without_pooling(tmp_path):
    write(tmp_path / "PE.pt", TREES["lang"])
    model = load_original(tmp_path / "PE.pt", **TOWER_HEADS)
    assert type(model) is PeVisionModel
    config = model.config
    assert (config.use_post_norm, config.use_attention_pooling, config.projection_dim) == (False, False, 0)
    assert config.layer_scale_init_value == 0.1


def test_tensors_arrive_where_they_belong(tmp_path):
    tensors = write(tmp_path / "PE.pt", clip())
    state = load_original(tmp_path / "PE.pt", **HEADS).state_dict()
    same = {
        "vision_model.patch_embed.proj.weight": tensors["visual.conv1.weight"],
        "vision_model.cls_token": tensors["visual.class_embedding"][None, None],
        "vision_model.pos_embed": tensors["visual.positional_embedding"][None],
        "vision_model.norm_pre.bias": tensors["visual.ln_pre.bias"],
        "vision_model.norm.weight": tensors["visual.ln_post.weight"],
        "vision_model.blocks.1.attn.qkv.bias": tensors["visual.transformer.resblocks.1.attn.in_proj_bias"],
        "vision_model.blocks.1.mlp.fc2.weight": tensors["visual.transformer.resblocks.1.mlp.c_proj.weight"],
        "vision_model.attn_pool.latent": tensors["visual.attn_pool.probe"],
        "vision_model.attn_pool.q.weight": tensors["visual.attn_pool.attn.in_proj_weight"][:32],
        "vision_model.attn_pool.kv.weight": tensors["visual.attn_pool.attn.in_proj_weight"][32:],
        "vision_model.attn_pool.kv.bias": tensors["visual.attn_pool.attn.in_proj_bias"][32:],
        "vision_model.attn_pool.mlp.fc1.weight": tensors["visual.attn_pool.mlp.c_fc.weight"],
        "vision_model.head.weight": tensors["visual.proj"].T,
        "vision_model.head.bias": torch.zeros(20),
        "text_model.token_embedding.weight": tensors["token_embedding.weight"],
        "text_model.pos_embed": tensors["positional_embedding"][None],
        "text_model.blocks.2.norm2.weight": tensors["transformer.resblocks.2.ln_2.weight"],
        "text_model.norm.bias": tensors["ln_final.bias"],
        "text_model.head.weight": tensors["text_projection"].T,
        "logit_scale": tensors["logit_scale"][None],
    }
    for name, tensor in same.items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(
    ("model_class", "left_out"),
    [
        (
            PeVisionModel,
            {
                **dict.fromkeys(
                    ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection"),
                    "PeVisionModel has no text tower",
                ),
                "logit_scale": "PeVisionModel has no temperature",
            },
        ),
        (
            PeCoreTextModel,
            {"visual": "PeCoreTextModel has no vision tower", "logit_scale": "PeCoreTextModel has no temperature"},
        ),
    ],
)
def test_a_tower_of_a_larger_model(tmp_path, model_class, left_out):
    tensors = write(tmp_path / "PE.pt", clip())
    fields = TOWER_HEADS if model_class is PeVisionModel else HEADS["text_config"]
    whole = load_original(tmp_path / "PE.pt", **HEADS)
    tower = load_original(tmp_path / "PE.pt", model_class=model_class, **fields)
    expected = (whole.vision_model if model_class is PeVisionModel else whole.text_model).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tower.state_dict().items())
    with planned(tmp_path / "PE.pt", None, Request(model_class=model_class, **fields)) as plan:
        assert dict(plan.found.left_out) == left_out and plan.form.on_request
    tensors["ema_decay"] = torch.zeros(1)
    torch.save(tensors, tmp_path / "more.pt")
    with pytest.raises(ConversionError, match="ema_decay: not expected"):
        load_original(tmp_path / "more.pt", model_class=model_class, **fields)


WRAPPERS = [(name, "", "") for name in TREES]
WRAPPERS += [("core", "state_dict", ""), ("core", "weights", "module."), ("spatial", "", "module.")]


@pytest.mark.parametrize(("name", "entry", "prefix"), WRAPPERS)
def test_files_come_back_with_what_was_around_their_tensors(tmp_path, name, entry, prefix):
    tensors = random_tensors(under(prefix, TREES[name]), seed=0)
    torch.save({entry: tensors, "epoch": 3} if entry else tensors, tmp_path / "PE.pt")
    convert_checkpoint(tmp_path / "PE.pt", tmp_path / "out", **heads(name))
    assert reverse_directory(tmp_path / "out", tmp_path / "back.pt") == {}
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    back = back[entry] if entry else back
    assert set(back) == set(tensors)
    assert all(torch.equal(back[key], tensor) for key, tensor in tensors.items())


BAD_FILES = {
    "missing": (lambda shapes: {k: s for k, s in shapes.items() if k != "visual.ln_pre.bias"}, "ln_pre.bias: missing"),
    "unknown": (lambda shapes: {**shapes, "visual.head": (3,)}, r"head: not expected \(found shape \[3\]\)"),
    "unknown text": (lambda shapes: {**shapes, "ln_extra": (3,)}, r"ln_extra: not expected"),
    "pooler's width": (
        lambda shapes: {**shapes, **under("visual.", linear("attn_pool.mlp.c_fc", 90, 32))},
        r"attn_pool.mlp.c_fc.weight: expected shape \[128, 32\], found shape \[90, 32\]",
    ),
    "spaces": (lambda shapes: {**shapes, "text_projection": (24, 12)}, "need one `projection_dim`.*got 20 and 12"),
    "table": (
        lambda shapes: {**shapes, "visual.positional_embedding": (12, 32)},
        r"positional_embedding: expected shape \[10, 32\], found shape \[12, 32\]",
    ),
    "some wrapped": (
        lambda shapes: {**shapes, "module.x": (1,)},
        "all names of a state dict must carry the same prefix",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_do_not_fit(tmp_path, name):
    change, message = BAD_FILES[name]
    write(tmp_path / "PE.pt", change(clip()))
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        load_original(tmp_path / "PE.pt", model_class=PeCoreModel, **HEADS)


BAD_REQUESTS = {
    "heads": ({}, r"don't tell vision_config.num_attention_heads, text_config.num_attention_heads"),
    "size": ({**HEADS, "vision_config": {**TOWER_HEADS, "image_size": 16}}, "image_size=16 was given, but .* say 12"),
    "scale": (
        {**HEADS, "vision_config": {**TOWER_HEADS, "layer_scale_init_value": 0.5}},
        r"layer_scale_init_value=0.5 was given, but .* say 0.0",
    ),
    "preset": ({"preset": "PE-Core-T16-384"}, "image_size=384 was given, but .* say 12"),
    "tower's preset": ({"preset": "PE-Spatial-T16-512"}, "image_size=512 was given, but .* say 12"),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_requests_that_cannot_be_met(tmp_path, name):
    request, message = BAD_REQUESTS[name]
    write(tmp_path / "PE.pt", clip())
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        load_original(tmp_path / "PE.pt", **request)


def test_an_image_size_that_leaves_pixels_over(tmp_path):
    """The table has the patches of 12 pixels, and of 13 to 15."""
    write(tmp_path / "PE.pt", vision(out=None))
    assert load_original(tmp_path / "PE.pt", image_size=14, **TOWER_HEADS).config.image_size == 14


PRESETS = {name: preset for name, preset in PE_CORE.presets.items() if name.startswith("PE-")}
MILLIONS = {  # parameters of both towers; apps/pe/README.md of the original, which leaves the tokens' table out
    "PE-Core-T16-384": (10, 40),
    "PE-Core-S16-384": (20, 40),
    "PE-Core-B16-224": (90, 310),
    "PE-Core-L14-336": (320, 310),
    "PE-Core-G14-448": (1880, 470),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_table_makes_exactly_the_tensors_of_every_preset(name):
    preset = PRESETS[name]
    model_class = PeCoreModel if name in MILLIONS else PeVisionModel
    model = empty_model(model_class, model_class.config_class(**preset.config))
    assert check_ours(form_of(model).rules(model.config), model.state_dict()) == []
    for prefix, millions in zip(("vision_model", "text_model"), MILLIONS.get(name, ()), strict=False):
        sizes = {key: each.numel() for key, each in model.named_parameters() if key.startswith(prefix)}
        sizes.pop("text_model.token_embedding.weight", None)
        assert abs(sum(sizes.values()) / 1e6 - millions) <= 10


# --------------------------------------------------------------------------------------------- directories, and back


def test_a_directory_with_processors(tmp_path):
    (tmp_path / "merges.txt").write_text("#version\na b</w>")
    write(tmp_path / "PE.pt", clip())
    settings = ["--set", f"vision_config={json.dumps(TOWER_HEADS)}"]
    settings += ["--set", f"text_config={json.dumps(HEADS['text_config'])}"]
    run("convert", tmp_path / "PE.pt", tmp_path / "out", "--tokenizer", tmp_path / "merges.txt", *settings)
    processor, model = (auto.from_pretrained(tmp_path / "out") for auto in (AutoProcessor, AutoModel))
    assert type(model) is PeCoreModel
    batch = processor(text=["ab", "b"], images=Image.new("RGB", (20, 30)), return_tensors="pt")
    assert batch["input_ids"].shape == (2, 9)  # the text tower's longest text
    assert batch["pixel_values"].shape == (1, 3, 12, 12)
    assert model(**batch).logits_per_image.shape == (1, 2)
    assert processor(videos=torch.zeros(2, 3, 8, 8), return_tensors="pt")["pixel_values_videos"].shape[-2:] == (12, 12)
    reports = verify_directory(tmp_path / "out", source=tmp_path / "PE.pt")
    assert all(report.passed for report in reports)
    card = (tmp_path / "out/README.md").read_text()
    assert "processor = AutoProcessor.from_pretrained(directory)" in card


def test_a_directory_without_tokenizer(tmp_path):
    write(tmp_path / "PE.pt", clip())
    convert_checkpoint(tmp_path / "PE.pt", tmp_path / "out", **HEADS)
    for auto in (AutoImageProcessor, AutoVideoProcessor):
        assert auto.from_pretrained(tmp_path / "out").size["height"] == 12


def test_a_tower_s_directory(tmp_path):
    write(tmp_path / "PE.pt", TREES["spatial as of core"])
    convert_checkpoint(tmp_path / "PE.pt", tmp_path / "out", **TOWER_HEADS)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    batch = processor(Image.new("RGB", (20, 30)), return_tensors="pt")
    assert AutoModel.from_pretrained(tmp_path / "out")(**batch).patch_features.shape == (1, 3, 3, 32)
    assert "AutoImageProcessor.from_pretrained" in (tmp_path / "out/README.md").read_text()
    with pytest.raises(ConversionError, match="PeVisionModel takes no text; leave the tokenizer out"):
        convert_checkpoint(tmp_path / "PE.pt", tmp_path / "more", tokenizer=tmp_path / "PE.pt", **TOWER_HEADS)


def test_a_tokenizer_of_another_vocabulary(tmp_path):
    (tmp_path / "merges.txt").write_text("#version\n" + "\n".join(f"{sign} {sign}" for sign in "abcdefghij"))
    write(tmp_path / "PE.pt", clip())
    with pytest.raises(ConversionError, match="has 524 pieces, but the model's table has 520"):
        convert_checkpoint(tmp_path / "PE.pt", tmp_path / "out", tokenizer=tmp_path / "merges.txt", **HEADS)


def test_a_text_tower_s_directory(tmp_path):
    (tmp_path / "merges.txt").write_text("#version\na b</w>")
    write(tmp_path / "PE.pt", clip())
    load_original(tmp_path / "PE.pt", **HEADS).text_model.save_pretrained(tmp_path / "out")
    reverse_directory(tmp_path / "out", tmp_path / "text.pt")
    convert_checkpoint(
        tmp_path / "text.pt", tmp_path / "again", tokenizer=tmp_path / "merges.txt", **HEADS["text_config"]
    )
    ids = AutoTokenizer.from_pretrained(tmp_path / "again")(["ab", "b"], padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(tmp_path / "again")
    assert type(model) is PeCoreTextModel
    assert model(**ids).text_embeds.shape == (2, 20)


def test_directories_without_provenance_are_reversed_in_the_published_form(tmp_path):
    tensors = write(tmp_path / "PE.pt", clip())
    load_original(tmp_path / "PE.pt", **HEADS).save_pretrained(tmp_path / "plain")
    reverse_directory(tmp_path / "plain", tmp_path / "back.pt")
    same_file(tmp_path / "back.pt", tensors)


def test_half_precision_directories_give_the_file_s_type_back(tmp_path):
    tensors = write(tmp_path / "PE.pt", clip())
    convert_checkpoint(tmp_path / "PE.pt", tmp_path / "out", dtype=torch.bfloat16, **HEADS)
    assert load_file(tmp_path / "out/model.safetensors")["logit_scale"].dtype == torch.bfloat16
    reverse_directory(tmp_path / "out", tmp_path / "back.pt")
    same_file(tmp_path / "back.pt", {name: tensor.bfloat16().float() for name, tensor in tensors.items()})


def test_a_bias_that_the_original_has_no_place_for(tmp_path):
    write(tmp_path / "PE.pt", clip())
    model = load_original(tmp_path / "PE.pt", **HEADS)
    with torch.no_grad():
        model.vision_model.head.bias[3] = 0.1
    model.save_pretrained(tmp_path / "plain")
    with pytest.raises(ConversionError, match="bias is not zero: the original has none"):
        reverse_directory(tmp_path / "plain", tmp_path / "back.pt")
    assert not (tmp_path / "back.pt").exists()


def test_a_folder_that_is_no_original_repository(tmp_path):
    write(tmp_path / "PE.pt", vision(out=None))
    with pytest.raises(ConversionError, match="is no checkout of the original code, it lacks core/"):
        convert_checkpoint(tmp_path / "PE.pt", tmp_path / "out", original_repo=tmp_path, **TOWER_HEADS)
