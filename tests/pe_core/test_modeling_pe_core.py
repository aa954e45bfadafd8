"""PE core, lang and spatial: what the shared tests don't ask."""

import json
import unittest

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin
from tests.harness.citizen import CitizenMixin
from tests.harness.compare import assert_close
from tests.harness.config import ConfigMixin
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import ParityMixin
from tests.harness.positions import PositionsMixin
from tests.harness.tolerances import EXACT, REORDERED
from tests.pe_core.spec import CORE, SPEC, TEXT, VISION
from tests.video_files import write_video
from vidformers import (
    PeCoreConfig,
    PeCoreImageProcessor,
    PeCoreModel,
    PeCoreProcessor,
    PeCoreTextConfig,
    PeCoreTextModel,
    PeCoreTokenizer,
    PeCoreVideoProcessor,
    PeVideoVideoProcessor,
    PeVisionConfig,
    PeVisionModel,
    decode_video,
)
from vidformers.commands.classify import Classifier
from vidformers.inference.embedder import VideoEmbedder
from vidformers.layers.losses import contrastive_loss
from vidformers.layers.patchify import Grid
from vidformers.models.pe_core.configuration_pe_vision import PE_ARCHITECTURES


class PeCoreConfigTest(ConfigMixin, AutoMixin, unittest.TestCase):
    spec = SPEC


class PeCoreModelTest(ModelingMixin, AttentionMixin, PositionsMixin, unittest.TestCase):
    spec = SPEC


class PeCoreCitizenTest(CitizenMixin, unittest.TestCase):
    """What tools do to modules works."""

    spec = SPEC


class PeCoreGoldenTest(ParityMixin, unittest.TestCase):
    """What the original code computed comes out."""

    spec = SPEC


ORIGINAL_SIZES = {  # width, blocks, heads, MLP, patch, image, embedding; core/vision_encoder/config.py of the original
    "vit_pe_core_tiny_patch16_384": (192, 12, 3, 768, 16, 384, 512),
    "vit_pe_core_small_patch16_384": (384, 12, 6, 1536, 16, 384, 512),
    "vit_pe_core_base_patch16_224": (768, 12, 12, 3072, 16, 224, 1024),
    "vit_pe_core_large_patch14_336": (1024, 24, 16, 4096, 14, 336, 1024),
    "vit_pe_core_gigantic_patch14_448": (1536, 50, 16, 8960, 14, 448, 1280),
    "vit_pe_lang_large_patch14_448": (1024, 23, 16, 4096, 14, 448, 0),
    "vit_pe_lang_gigantic_patch14_448": (1536, 47, 16, 8960, 14, 448, 0),
    "vit_pe_spatial_tiny_patch16_512": (192, 12, 3, 768, 16, 512, 0),
    "vit_pe_spatial_small_patch16_512": (384, 12, 6, 1536, 16, 512, 0),
    "vit_pe_spatial_base_patch16_512": (768, 12, 12, 3072, 16, 512, 0),
    "vit_pe_spatial_large_patch14_448": (1024, 24, 16, 4096, 14, 448, 0),
    "vit_pe_spatial_gigantic_patch14_448": (1536, 50, 16, 8960, 14, 448, 0),
}
SIZE_FIELDS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size", "image_size"),
    "projection_dim",
)
SCALED = {name for name in ORIGINAL_SIZES if "lang" in name or name == "vit_pe_spatial_gigantic_patch14_448"}


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tower(**fields) -> PeVisionModel:
    torch.manual_seed(0)
    return PeVisionModel(PeVisionConfig(**{**VISION, **fields})).eval()


@pytest.fixture
def model() -> PeCoreModel:
    torch.manual_seed(0)
    return PeCoreModel(PeCoreConfig(**CORE)).eval()


def texts(batch: int = 3) -> torch.Tensor:
    """Three words, the end, and padding."""
    ids = torch.randint(1, 40, (batch, 7), generator=torch.Generator().manual_seed(0))
    ids[:, 4], ids[:, 5:] = 49, 0
    return ids


@torch.no_grad()
def run(function, *arguments, **options):
    return function(*arguments, **options)


# ---------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("name", ORIGINAL_SIZES)
def test_architectures_have_the_original_s_sizes(name):
    config = PeVisionConfig(architecture=name)
    assert tuple(getattr(config, field) for field in SIZE_FIELDS) == ORIGINAL_SIZES[name]
    is_core, is_gigantic = "core" in name, "gigantic" in name
    assert (config.use_post_norm, config.use_attention_pooling) == (is_core, is_core)
    assert config.use_cls_token is not is_gigantic
    assert config.layer_scale_init_value == (0.1 if name in SCALED else 0.0)
    assert (config.num_channels, config.pooler_num_attention_heads) == (3, 8)


def test_every_architecture_is_tested():
    assert set(PE_ARCHITECTURES) == set(ORIGINAL_SIZES)


def test_what_published_directories_say():
    published = {
        "architecture": "vit_pe_core_large_patch14_336",
        "do_pooling": True,
        "dtype": "float32",
        "global_pool": "map",
        "initializer_range": 0.02,
        "label_names": [f"LABEL_{index}" for index in range(1024)],
        "model_args": None,
        "model_type": "timm_wrapper",
        "num_classes": 1024,
    }
    config = PeVisionConfig(**published)
    assert config.model_type == "pe_vision_model"
    assert config.to_dict() == {**PeVisionConfig().to_dict(), "dtype": "float32"}


@pytest.mark.parametrize("name", ["num_labels", "num_classes", "projection_dim"])
def test_names_of_the_width_of_embeddings(name):
    config = PeVisionConfig(**{name: 20})
    assert config.projection_dim == config.num_labels == config.num_classes == 20
    with torch.device("meta"):
        assert PeVisionModel(config).head.weight.shape == (20, 1024)


def test_arguments_of_timm_s_models():
    arguments = {
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 3,
        "mlp_ratio": 2.5,
        "patch_size": 8,
        "img_size": [32, 32],
        "in_chans": 3,
        "class_token": False,
        "init_values": 0.3,
        "use_post_transformer_norm": False,
        "attn_pool_num_heads": 4,
        "num_classes": 20,
        "ref_feat_shape": [4, 4],
        "dynamic_img_size": True,
        "drop_path_rate": 0.0,
    }
    config = PeVisionConfig(model_args=arguments, hidden_act="relu")
    assert tuple(getattr(config, field) for field in SIZE_FIELDS) == (48, 2, 3, 120, 8, 32, 20)
    assert (config.use_cls_token, config.use_post_norm, config.pooler_num_attention_heads) == (False, False, 4)
    assert config.layer_scale_init_value == 0.3
    assert PeVisionConfig(**config.to_dict()).to_dict() == config.to_dict()
    ours = {name: arguments[name] for name in arguments if name not in ("in_chans", "num_classes", "dynamic_img_size")}
    ours.pop("drop_path_rate")
    assert config.to_dict()["model_args"] == {**ours, "img_size": 32}


def test_fields_win_over_arguments_of_timm():
    config = PeVisionConfig(hidden_size=64, model_args={"embed_dim": 48, "mlp_ratio": 2.0})
    assert (config.hidden_size, config.intermediate_size) == (64, 96)


def test_towers_of_a_table_need_no_arguments():
    for name in PE_ARCHITECTURES:
        assert "model_args" not in PeVisionConfig(architecture=name).to_dict()


def test_pooling_is_an_argument_too():
    config = PeVisionConfig(architecture="vit_pe_spatial_tiny_patch16_512", use_attention_pooling=True)
    heads = {"attn_pool_num_heads": 8, "attn_pool_mlp_ratio": 4.0}
    assert config.to_dict()["model_args"] == {"global_pool": "map", **heads}
    assert PeVisionConfig(**config.to_dict()).use_attention_pooling
    assert not PeVisionConfig(architecture="vit_pe_lang_large_patch14_448", global_pool="avg").use_attention_pooling


@pytest.mark.parametrize("name", ["vit_pe_core_large_patch14_336", "vit_pe_lang_gigantic_patch14_448"])
def test_mlps_keep_timm_s_ratio(name):
    table = PE_ARCHITECTURES[name]
    config = PeVisionConfig(architecture=name, model_args={"embed_dim": 96, "num_heads": 4})
    assert config.intermediate_size == int(96 * (table["intermediate_size"] / table["hidden_size"]))
    assert PeVisionConfig(architecture=name, model_args={"depth": 2}).intermediate_size == table["intermediate_size"]


def test_images_need_not_be_square():
    config = PeVisionConfig(image_size=[28, 56], num_hidden_layers=1)
    assert config.position_grid == (2, 4)
    arguments = config.to_dict()["model_args"]
    assert (arguments["img_size"], arguments["ref_feat_shape"]) == ([28, 56], [2, 4])
    back = PeVisionConfig(num_hidden_layers=1, model_args=arguments)
    assert (back.image_size, back.position_grid) == ([28, 56], (2, 4))
    assert PeVisionConfig(image_size=(28, 28)).image_size == 28
    torch.manual_seed(0)
    tower = PeVisionModel(PeVisionConfig(**VISION | {"image_size": [8, 16]})).eval()
    assert tower.pos_embed.shape == (1, 9, 32)
    assert run(tower, seeded(2, 3, 8, 16)).patch_features.shape == (2, 2, 4, 32)


def test_processors_take_height_and_width():
    video = np.zeros((2, 20, 30, 3), np.uint8)
    for size in ([16, 24], {"height": 16, "width": 24}):
        pixels = PeCoreVideoProcessor(size=size)(video, return_tensors="pt")["pixel_values_videos"]
        assert pixels.shape == (1, 2, 3, 16, 24)
        pixels = PeCoreImageProcessor(size=size)(video[0], return_tensors="pt")["pixel_values"]
        assert pixels.shape == (1, 3, 16, 24)


def test_heads_without_attention_pooling_read_the_mean_of_the_patches():
    """As timm's, whose towers of PE lang and PE spatial have `num_classes` 0 but take another number."""
    name = "vit_pe_spatial_tiny_patch16_512"
    config = PeVisionConfig(architecture=name, num_classes=7, **{**VISION, "projection_dim": None})
    assert config.projection_dim == 7 and "global_pool" not in config.to_dict()["model_args"]
    torch.manual_seed(0)
    tower = PeVisionModel(config).eval()
    output = run(tower, seeded(2, 3, 16, 16))
    expected = tower.head(output.last_hidden_state[:, 1:].mean(1))
    torch.testing.assert_close(output.image_embeds, expected)
    moved = PeVisionConfig(use_attention_pooling=False).to_dict()["model_args"]
    assert moved == {"global_pool": "avg", "use_fc_norm": False}
    assert not PeVisionConfig(model_args=moved).use_attention_pooling


@pytest.mark.parametrize("width", [120, 373, 491])
def test_widths_of_mlps_survive_being_ratios(width):
    """timm rounds a ratio times the tower's width down: 88 · (120 / 88) is below 120."""
    config = PeVisionConfig(hidden_size=88, num_attention_heads=2, intermediate_size=width)
    assert int(88 * config.to_dict()["model_args"]["mlp_ratio"]) == width


BAD_CONFIGS = {
    "architecture": ({"architecture": "vit_large"}, "must be one of vit_pe_core_tiny.*got 'vit_large'"),
    "arguments": ({"model_args": {"qk_norm": True}}, "`model_args` has qk_norm, which this model lacks"),
    "image": ({"image_size": [32, 64, 3]}, r"must be a number of pixels or \[height, width\]"),
    "moved norm": ({"global_pool": "avg"}, "timm normalizes the mean instead of the tokens"),
    "pooling": ({"global_pool": "token"}, "pools in no other way"),
    "rescaled": ({"model_args": {"img_size": 448, "ref_feat_shape": [24, 24]}}, r"must be \(32, 32\), the grid"),
    "rescaled alone": ({"model_args": {"ref_feat_shape": 32}}, r"must be \(24, 24\), the grid"),
    "heads": ({"num_attention_heads": 6}, r"`hidden_size` \(1024\) must be a multiple of four times"),
    "odd pairs": ({"hidden_size": 36, "num_attention_heads": 6}, "multiple of four times `num_attention_heads`"),
    "no heads": ({"num_attention_heads": 0}, "multiple of four times"),
    "pooler": ({"pooler_num_attention_heads": 3}, r"multiple of `pooler_num_attention_heads` \(3\)"),
    "patch": ({"image_size": 13}, "No patch of 14 pixels fits into images of 13 pixels"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_configurations_that_make_no_sense(name):
    fields, message = BAD_CONFIGS[name]
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        PeVisionConfig(**fields)


def test_towers_of_a_model_must_share_a_space():
    with pytest.raises(StrictDataclassError, match="both towers need one `projection_dim`, above 0; got 1024 and 512"):
        PeCoreConfig(text_config={"projection_dim": 512})
    with pytest.raises(StrictDataclassError, match="got 0 and 1024"):
        PeCoreConfig(vision_config={"architecture": "vit_pe_lang_large_patch14_448"})


def test_heads_of_the_text_tower_divide_its_width():
    with pytest.raises(StrictDataclassError, match=r"\(1024\) must be a multiple of `num_attention_heads` \(3\)"):
        PeCoreTextConfig(num_attention_heads=3)


def test_defaults_are_the_large_model():
    config = PeCoreConfig()
    assert config.vision_config.architecture == "vit_pe_core_large_patch14_336"
    assert config.text_config.max_position_embeddings == 32
    assert abs(config.logit_scale_init_value - np.log(1 / 0.07)) < 1e-12


# ------------------------------------------------------------------------------------------------------ vision tower


def test_names_are_those_of_timm():
    block = [f"norm{index}.{leaf}" for index in (1, 2) for leaf in ("weight", "bias")]
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    block += [*(f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")), "gamma_1", "gamma_2"]
    pooler = [
        f"{layer}.{leaf}" for layer in ("q", "kv", "proj", "norm", "mlp.fc1", "mlp.fc2") for leaf in ("weight", "bias")
    ]
    expected = {
        *("cls_token", "pos_embed", "patch_embed.proj.weight", "attn_pool.latent"),
        *(f"{norm}.{leaf}" for norm in ("norm_pre", "norm", "head") for leaf in ("weight", "bias")),
        *(f"blocks.{index}.{name}" for index in range(2) for name in block),
        *(f"attn_pool.{name}" for name in pooler),
    }
    assert set(tower().state_dict()) == expected


@pytest.mark.parametrize("prefix", ["", "timm_model."])
def test_directories_of_timm_and_of_transformers_load(tmp_path, prefix):
    """timm writes the names as they are, transformers' wrapper puts one before them; neither knows our fields."""
    built = tower()
    arguments = {**built.config.to_dict()["model_args"], "num_classes": 20}
    published = {"architecture": "vit_pe_core_large_patch14_336", "num_classes": 20, "global_pool": "map"}
    published |= {"model_args": arguments, "num_features": 32, "pretrained_cfg": {"tag": "fb", "num_classes": 20}}
    (tmp_path / "config.json").write_text(json.dumps(published))
    state = {f"{prefix}{name}": tensor for name, tensor in built.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = PeVisionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert_close("tensors", built.state_dict(), loaded.state_dict(), EXACT)


@pytest.mark.parametrize("use_cls_token", [True, False])
def test_patch_features_are_the_tokens_on_their_grid(use_cls_token):
    output = run(tower(use_cls_token=use_cls_token), seeded(2, 3, 12, 20))
    assert output.patch_features.shape == (2, 3, 5, 32)
    tokens = output.last_hidden_state[:, int(use_cls_token) :]
    for row in range(3):
        for column in range(5):
            assert torch.equal(output.patch_features[:, row, column], tokens[:, 5 * row + column])


def test_towers_without_pooling_give_tokens_alone():
    built = tower(use_attention_pooling=False, use_post_norm=False, projection_dim=0)
    output = run(built, seeded(1, 3, 16, 16), output_hidden_states=True)
    assert output.pooler_output is None and output.image_embeds is None
    assert torch.equal(output.last_hidden_state, output.hidden_states[-1])
    assert not any(name.startswith(("norm.", "attn_pool", "head")) for name in built.state_dict())


def test_pooling_without_projection():
    output = run(tower(projection_dim=0), seeded(1, 3, 16, 16))
    assert output.image_embeds is None and output.pooler_output.shape == (1, 32)


def test_the_pooler_is_multi_head_attention_of_its_query():
    """Beside torch's own layer, which projects every token."""
    built, tokens = tower().attn_pool, seeded(2, 5, 32)
    nn.init.normal_(built.kv.bias)
    nn.init.normal_(built.q.bias)
    theirs = nn.MultiheadAttention(32, 8, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([built.q.weight, built.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([built.q.bias, built.kv.bias]))
        theirs.out_proj.load_state_dict(built.proj.state_dict())
        attended = theirs(built.latent.expand(2, -1, -1), tokens, tokens)[0]
        expected = (attended + built.mlp(built.norm(attended)))[:, 0]
        assert_close("pooled", {"pooled": expected}, {"pooled": built(tokens)}, REORDERED)


def test_positions_move_with_the_grid():
    """A picture twice as high has the first rows where a small one has them: rotary angles are never rescaled."""
    built = tower()
    small, large = (built._rotary(Grid(1, rows, 4), torch.device("cpu")) for rows in (4, 8))
    assert torch.equal(small.own, large.own[:, :17]) and torch.equal(small.neighbor, large.neighbor[:, :17])
    assert (small.own[:, 0] == 1).all() and (small.neighbor[:, 0] == 0).all()  # the class token is not turned
    assert small.own.dtype == torch.float32


BAD_IMAGES = {
    "video": (seeded(1, 2, 3, 16, 16), r"\(batch, 3, height, width\).*got \(1, 2, 3, 16, 16\)"),
    "gray": (seeded(2, 1, 16, 16), r"got \(2, 1, 16, 16\)"),
    "empty": (seeded(0, 3, 16, 16), "at least one image"),
    "small": (seeded(1, 3, 3, 16), "at least 1 frame.s. of 4 × 4"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_inputs_that_are_no_images(name):
    pixel_values, message = BAD_IMAGES[name]
    with pytest.raises(ValueError, match=message):
        tower()(pixel_values)


# ------------------------------------------------------------------------------------------------------- text tower


def test_what_follows_the_end_of_a_text_changes_nothing(model):
    ids = texts()
    other = ids.clone()
    other[:, 5:] = 7
    first, second = (run(model.get_text_features, each) for each in (ids, other))
    assert torch.equal(first.pooler_output, second.pooler_output)
    assert not torch.equal(first.last_hidden_state, second.last_hidden_state)
    assert_close(
        "cut",
        {"embeds": first.pooler_output},
        {"embeds": run(model.get_text_features, ids[:, :5]).pooler_output},
        REORDERED,
    )


def test_the_first_of_the_highest_numbers_ends_a_text():
    torch.manual_seed(0)
    built = PeCoreTextModel(PeCoreTextConfig(**TEXT)).eval()
    output = run(built, torch.tensor([[3, 49, 5, 49]]))
    assert torch.equal(output.pooler_output, output.last_hidden_state[:, 1])


def test_texts_that_are_too_long(model):
    with pytest.raises(ValueError, match="Texts have 10 tokens, the model takes 9 at most.*truncation=True"):
        model.get_text_features(torch.ones(1, 10, dtype=torch.long))


# ------------------------------------------------------------------------------------------------- images and videos


def test_a_video_is_the_mean_of_its_frames(model):
    video = seeded(2, 3, 3, 16, 16)
    frames = run(model.get_image_features, video.flatten(0, 1)).pooler_output.unflatten(0, (2, 3))
    found = run(model.get_video_features, video)
    assert_close("mean", {"embeds": frames.mean(1)}, {"embeds": found.pooler_output}, REORDERED)
    assert found.last_hidden_state.shape == (6, 16, 48)
    even = run(model.get_video_features, video, normalize_frames=True).pooler_output
    expected = nn.functional.normalize(frames, dim=-1).mean(1)
    assert_close("mean of unit frames", {"embeds": expected}, {"embeds": even}, REORDERED)


@pytest.mark.parametrize("normalize_frames", [False, True])
def test_padding_frames_count_nothing_and_cost_nothing(model, normalize_frames):
    video, seen = seeded(2, 4, 3, 16, 16), []
    mask = torch.tensor([[True, True, False, False], [False, True, True, True]])
    model.vision_model.patch_embed.register_forward_hook(lambda *call: seen.append(len(call[2])))
    options = {"normalize_frames": normalize_frames}
    found = run(model.get_video_features, video, padding_mask_videos=mask, output_hidden_states=True, **options)
    assert seen == [5]
    parts = [run(model.get_video_features, video[i : i + 1, mask[i]], **options).pooler_output for i in (0, 1)]
    assert_close("shorter", {"embeds": torch.cat(parts)}, {"embeds": found.pooler_output}, REORDERED)
    for states in (found.last_hidden_state, *found.hidden_states):
        assert (states.unflatten(0, (2, 4))[~mask] == 0).all()


def test_an_image_is_a_video_of_one_frame(model):
    images, ids = seeded(2, 3, 16, 16), texts()
    as_image = run(model, ids, pixel_values=images)
    as_video = run(model, ids, pixel_values_videos=images[:, None])
    assert_close("logits", {"l": as_image.logits_per_image}, {"l": as_video.logits_per_video}, REORDERED)
    assert as_image.logits_per_video is None and as_video.logits_per_image is None
    assert torch.equal(as_image.logits_per_text, as_image.logits_per_image.T)


def test_embeddings_have_length_one_but_for_means_of_unit_frames(model):
    video = seeded(2, 3, 3, 16, 16)
    output = run(model, texts(), pixel_values_videos=video)
    for embeds in (output.text_embeds, output.video_embeds):
        torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(len(embeds)))
    mean = run(model, texts(), pixel_values_videos=video, normalize_frames=True)
    assert (mean.video_embeds.norm(dim=-1) < 1).all()
    expected = model.logit_scale.exp() * mean.video_embeds @ mean.text_embeds.T
    assert_close("logits", {"l": expected}, {"l": mean.logits_per_video}, REORDERED)


def test_one_modality_alone(model):
    for arguments, filled in (
        ({"input_ids": texts()}, {"text_embeds", "text_model_output"}),
        ({"pixel_values": seeded(1, 3, 16, 16)}, {"image_embeds", "vision_model_output"}),
        ({"pixel_values_videos": seeded(1, 2, 3, 16, 16)}, {"video_embeds", "vision_model_output"}),
    ):
        assert set(run(model, **arguments).keys()) == filled


def test_the_loss_is_that_of_clip(model):
    output = run(model, texts(2), pixel_values=seeded(2, 3, 16, 16), return_loss=True)
    assert torch.equal(output.loss, contrastive_loss(output.logits_per_image))


BAD_CALLS = {
    "nothing": ({}, "Give `input_ids`, `pixel_values` or `pixel_values_videos`"),
    "both": ({"pixel_values": 1, "pixel_values_videos": 1}, "a call compares texts with one of them"),
    "loss of texts": ({"input_ids": texts(), "return_loss": True}, "`return_loss` needs images or videos"),
    "loss of images": ({"pixel_values": 1, "return_loss": True}, "a loss needs texts as well"),
    "image as video": ({"pixel_values_videos": seeded(2, 3, 16, 16)}, r"\(batch, frames, 3, height, width\)"),
    "no frames": ({"pixel_values_videos": seeded(2, 0, 3, 16, 16)}, r"at least one of each, got \(2, 0"),
    "mask": (
        {"pixel_values_videos": seeded(1, 2, 3, 16, 16), "padding_mask_videos": torch.ones(1, 3)},
        r"`padding_mask_videos` of shape \(batch, frames\) = \(1, 2\), got \(1, 3\)",
    ),
    "only padding": (
        {"pixel_values_videos": seeded(2, 2, 3, 16, 16), "padding_mask_videos": torch.tensor([[1, 1], [0, 0]])},
        "leaves a video without any frame",
    ),
    "unequal pairs": (
        {"input_ids": texts(3), "pixel_values": seeded(2, 3, 16, 16), "return_loss": True},
        "as many texts as videos",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_calls_that_make_no_sense(model, name):
    arguments, message = BAD_CALLS[name]
    with pytest.raises(ValueError, match=message):
        model(**arguments)


# ------------------------------------------------------------------------------------------------------- processing


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_images_are_squeezed_as_by_the_original():
    """torchvision's Resize, ToTensor and Normalize on Pillow images, written out."""
    processor = PeCoreImageProcessor(size={"height": 16, "width": 16})
    images = [picture(40, 60), picture(9, 7, seed=1).convert("L"), picture(16, 16, seed=2)]
    found = processor(images, return_tensors="pt")["pixel_values"]
    assert found.shape == (3, 3, 16, 16) and found.dtype == torch.float32
    for image, pixels in zip(images, found, strict=True):
        squeezed = image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
        expected = (torch.from_numpy(np.array(squeezed)).permute(2, 0, 1) / 255 - 0.5) / 0.5
        torch.testing.assert_close(pixels, expected, atol=1e-6, rtol=0)


def test_images_have_the_large_model_s_size_by_default():
    assert PeCoreImageProcessor()(picture(20, 30), return_tensors="pt")["pixel_values"].shape == (1, 3, 336, 336)


@pytest.fixture
def processor(tmp_path) -> PeCoreProcessor:
    (tmp_path / "merges.txt").write_text("#version\na b</w>")
    size = {"height": 16, "width": 16}
    tokenizer = PeCoreTokenizer(tmp_path / "merges.txt", model_max_length=9)
    return PeCoreProcessor(PeCoreImageProcessor(size=size), PeVideoVideoProcessor(size=size), tokenizer)


def test_one_call_prepares_all(processor):
    video = np.zeros((5, 20, 30, 3), dtype=np.uint8)
    batch = processor(text=["ab", "abba"], images=[picture(8, 9)], videos=[video, video[:3]], return_tensors="pt")
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_ids": (2, 9),
        "pixel_values": (1, 3, 16, 16),
        "pixel_values_videos": (2, 5, 3, 16, 16),
        "padding_mask_videos": (2, 5),
    }
    assert batch["padding_mask_videos"].sum(1).tolist() == [5, 3]


def test_a_directory_prepares_and_computes(processor, model, tmp_path):
    model.config.text_config.vocab_size = len(processor.tokenizer)
    torch.manual_seed(0)
    model = PeCoreModel(model.config)
    model.save_pretrained(tmp_path / "out")
    processor.save_pretrained(tmp_path / "out")
    loaded = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    again = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert type(loaded) is PeCoreProcessor and type(again) is PeCoreModel
    video = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    batch = loaded(text=["ab", "b"], videos=video, return_tensors="pt")
    assert_close(
        "logits",
        {"l": run(model.eval(), **batch).logits_per_video},
        {"l": run(again, **batch).logits_per_video},
        EXACT,
    )


def test_videos_are_classified(processor, model, tmp_path):
    """`vidformers classify` takes eight frames, spread as in the original's benchmarks, and the logits as they are."""
    model.config.text_config.vocab_size = len(processor.tokenizer)
    model = PeCoreModel(model.config).eval()
    model.save_pretrained(tmp_path / "out")
    processor.save_pretrained(tmp_path / "out")
    path = write_video(tmp_path / "video.mp4", num_frames=16)
    shares = Classifier(tmp_path / "out").classify(path, ["ab", "b", "a"])
    frames, _ = decode_video(path, [i * 15 // 7 for i in range(8)])
    batch = processor(text=["ab", "b", "a"], videos=frames, return_tensors="pt")
    expected = run(model, **batch).logits_per_video[0].softmax(-1).tolist()
    assert shares == pytest.approx(dict(zip(("ab", "b", "a"), expected, strict=True)))
    assert list(shares.values()) == sorted(expected, reverse=True)


@pytest.mark.parametrize("auto", ["AutoImageProcessor", "AutoProcessor"])
def test_a_tower_s_directory_has_an_image_processor(tmp_path, auto):
    tower().save_pretrained(tmp_path)
    PeCoreImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    loaded = getattr(transformers, auto).from_pretrained(tmp_path)
    assert type(loaded) is PeCoreImageProcessor
    batch = loaded(picture(20, 30), return_tensors="pt")
    assert run(transformers.AutoModel.from_pretrained(tmp_path), **batch).image_embeds.shape == (1, 20)


# ----------------------------------------------------------------------------------------- videos, patches and words


def test_patches_in_the_space_of_texts():
    """As the tower embeds an image of which its pooler sees one patch alone."""
    model = SPEC.build(next(model for model in SPEC.models if model.name == "PeCoreModel"))
    tower, video = model.vision_model, seeded(2, 3, 3, 16, 24)
    embeds = run(model.get_patch_embeds, video)
    assert embeds.shape == (2, 3, 4, 6, 20) and embeds.dtype == torch.float32
    features = run(model.get_feature_map, video)
    with torch.no_grad():
        expected = tower.head(tower.attn_pool(features[1, 2, 3, 5].view(1, 1, -1)))[0]
    torch.testing.assert_close(embeds[1, 2, 3, 5], expected / expected.norm())


@pytest.mark.parametrize("architecture", ["vit_pe_lang_large_patch14_448", "vit_pe_spatial_gigantic_patch14_448"])
def test_towers_take_videos(architecture, tmp_path):
    """In memory, with padding, and as files by `AutoVideoProcessor` and the embedder."""
    tower = tower_of(architecture, {**VISION, "projection_dim": 0})
    video = seeded(2, 3, 3, 16, 16)
    features = run(tower.get_feature_map, video).mean((2, 3))
    torch.testing.assert_close(run(tower.embed_videos, video), features.mean(1))
    mask = torch.tensor([[1, 0, 1], [1, 1, 1]])
    expected = torch.stack([features[0, [0, 2]].mean(0), features[1].mean(0)])
    torch.testing.assert_close(run(tower.embed_videos, video, mask), expected)
    with pytest.raises(ValueError, match="leaves a video without any frame"):
        tower.embed_videos(video, mask * 0)

    tower.save_pretrained(tmp_path)
    PeCoreImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    path = write_video(tmp_path / "video.mp4", num_frames=5)
    processor = transformers.models.auto.video_processing_auto.AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(processor) is PeCoreVideoProcessor
    batch = processor(str(path), num_frames=4, return_tensors="pt")
    assert batch["pixel_values_videos"].shape == (1, 4, 3, 16, 16)
    found = VideoEmbedder.from_pretrained(tmp_path, num_frames=4).encode(path)
    torch.testing.assert_close(found, run(tower.embed_videos, **batch))


# ------------------------------------------------------------------------------------------------------------- timm


@pytest.fixture(scope="module")
def timm():
    return pytest.importorskip("timm", reason="the package timm, whose towers these are, is not installed")


@pytest.mark.parametrize("name", PE_ARCHITECTURES)
def test_towers_have_timm_s_tensors(timm, name):
    config = PeVisionConfig(architecture=name)
    with torch.device("meta"):
        theirs, ours = timm.create_model(name, num_classes=config.projection_dim), PeVisionModel(config)
    shapes = [{key: tensor.shape for key, tensor in each.state_dict().items()} for each in (theirs, ours)]
    assert shapes[0] == shapes[1]


TIMM_TOWERS = {
    "core_large_patch14_336": {"projection_dim": 20},
    "core_gigantic_patch14_448": {"projection_dim": 20, "image_size": [8, 16]},
    "lang_large_patch14_448": {},
    "spatial_tiny_patch16_512": {"projection_dim": 20},
    "core_tiny_patch16_384": {"projection_dim": 20, "use_attention_pooling": False},
}


@pytest.mark.parametrize("name", TIMM_TOWERS)
def test_transformers_reads_and_writes_the_same_directories(timm, name, tmp_path):
    fields = {
        name: value for name, value in VISION.items() if name not in ("projection_dim", "layer_scale_init_value")
    }
    fields |= TIMM_TOWERS[name]
    ours = tower_of(f"vit_pe_{name}", fields)
    ours.save_pretrained(tmp_path / "ours")
    settings = json.loads((tmp_path / "ours/config.json").read_text())
    config = transformers.TimmWrapperConfig(**settings)
    kind = transformers.TimmWrapperModel if "lang" in name else transformers.TimmWrapperForImageClassification
    theirs = kind(config).eval()
    theirs.load_state_dict(load_file(tmp_path / "ours/model.safetensors"))
    height, width = fields["image_size"] if isinstance(fields["image_size"], list) else (16, 16)
    images = seeded(2, 3, height, width)
    output, expected = run(ours, images), run(theirs, images)
    if "lang" in name:
        assert_close("tokens", {"x": expected.last_hidden_state}, {"x": output.last_hidden_state}, REORDERED)
    else:
        assert_close("embeddings", {"x": expected.logits}, {"x": output.image_embeds}, REORDERED)
    theirs.save_pretrained(tmp_path / "theirs")
    back = PeVisionModel.from_pretrained(tmp_path / "theirs")
    assert_close("tensors", ours.state_dict(), back.state_dict(), EXACT)


def tower_of(architecture: str, fields: dict) -> PeVisionModel:
    torch.manual_seed(0)
    return PeVisionModel(PeVisionConfig(architecture=architecture, **fields)).eval()
