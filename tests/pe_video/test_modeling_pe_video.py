"""PE Video beyond the shared tests: padding, embeddings and losses, configurations, and transformers beside it."""

import json
import logging
import shutil
import unittest

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.models.pe_video import configuration_pe_video as stock_configuration
from transformers.models.pe_video import modeling_pe_video as stock

from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin
from tests.harness.citizen import CitizenMixin
from tests.harness.compare import assert_close
from tests.harness.config import ConfigMixin
from tests.harness.family_spec import all_states, randomise
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import ParityMixin
from tests.harness.positions import PositionsMixin
from tests.harness.tolerances import EXACT, NOTICEABLE, REORDERED
from tests.pe_video.spec import ENCODER, MODEL, SPEC, TEXT, VISION
from tests.text_files import save_modernbert_tokenizer
from tests.video_files import write_video
from vidformers import (
    PeVideoConfig,
    PeVideoEncoder,
    PeVideoEncoderConfig,
    PeVideoModel,
    PeVideoVideoProcessor,
    PeVisionConfig,
    PeVisionModel,
)
from vidformers.commands.classify import Classifier
from vidformers.inference.embedder import VideoEmbedder
from vidformers.layers.norms import unit_length
from vidformers.models.pe_video.modeling_pe_video import sigmoid_loss


class PeVideoConfigTest(ConfigMixin, AutoMixin, unittest.TestCase):
    spec = SPEC


class PeVideoModelTest(ModelingMixin, AttentionMixin, PositionsMixin, unittest.TestCase):
    spec = SPEC


class PeVideoCitizenTest(CitizenMixin, unittest.TestCase):
    """What tools do to modules works."""

    spec = SPEC


class PeVideoGoldenTest(ParityMixin, unittest.TestCase):
    """What the original code computed comes out."""

    spec = SPEC


REAL = {
    "all": [True] * 5,
    "trailing": [True, True, True, False, False],
    "leading": [False, False, True, True, True],
    "holes": [True, False, True, False, True],
    "one": [False, False, False, True, False],
    "none": [False] * 5,
}


def build(model_class, config):
    torch.manual_seed(0)
    return randomise(model_class(config).eval(), 0)


def encoder(**fields):
    return build(PeVideoEncoder, PeVideoEncoderConfig(**{**ENCODER, **fields}))


def video_text(**fields):
    return build(PeVideoModel, PeVideoConfig(video_config=ENCODER, text_config=TEXT, **fields))


def video(batch=2, frames=5, height=16, width=16, seed=0):
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def words(batch=2, length=7, seed=0):
    return torch.randint(5, TEXT["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run(function, *arguments, **options):
    return function(*arguments, **options)


def count_frames(model):
    """A list that gets the number of frames of every run of the frame tower."""
    counts: list[int] = []
    tower = next(module for module in model.modules() if isinstance(module, PeVisionModel))
    tower.norm_pre.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
    return counts


# ---------------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_padding_never_enters_the_frame_tower(attention):
    model, pixels = encoder(attn_implementation=attention), video(batch=len(REAL))
    real = torch.tensor(list(REAL.values()))
    counts = count_frames(model)
    run(model, pixels, real)
    assert counts == [real.sum().item()]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_padded_batch_equals_every_clip_alone(attention):
    """Trailing padding is as no padding; wherever it stands, a mask in a batch does what it does alone."""
    model, pixels = encoder(attn_implementation=attention), video(batch=len(REAL))
    real = torch.tensor(list(REAL.values()))
    together = run(model, pixels, real, output_hidden_states=True)
    for index, mask in enumerate(real):
        row, kept = slice(index, index + 1), nn.functional.pad(mask, (1, 0), value=True)
        alone = run(model, pixels[row], mask[None], output_hidden_states=True)
        expected = {"pooler_output": alone.pooler_output, "last_hidden_state": alone.last_hidden_state[:, mask]}
        found = {
            "pooler_output": together.pooler_output[row],
            "last_hidden_state": together.last_hidden_state[row][:, mask],
        }
        expected |= {str(n): state[:, kept] for n, state in enumerate(alone.hidden_states)}
        found |= {str(n): state[row][:, kept] for n, state in enumerate(together.hidden_states)}
        assert_close(f"padding: {list(REAL)[index]}", expected, found, REORDERED)
    short = run(model, pixels[1:2, :3])
    assert_close(
        "the clip without its padding",
        {"pooler_output": short.pooler_output, "last_hidden_state": short.last_hidden_state},
        {"pooler_output": together.pooler_output[1:2], "last_hidden_state": together.last_hidden_state[1:2, :3]},
        REORDERED,
    )


@pytest.mark.parametrize("filling", [0.0, 1e4, float("nan"), float("inf")])
def test_what_fills_the_batch_is_never_read(filling):
    model, real = encoder(), torch.tensor(list(REAL.values()))
    pixels = video(batch=len(REAL))
    filled = pixels.masked_fill(~real[..., None, None, None], filling)
    expected, found = (
        all_states(model, {"pixel_values_videos": each, "padding_mask_videos": real}) for each in (pixels, filled)
    )
    assert_close(f"padding of {filling}", expected, found, EXACT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_videos_of_nothing_but_padding(attention, dtype):
    model = encoder(attn_implementation=attention).to(dtype)
    pixels, real = video(), torch.zeros(2, 5, dtype=torch.bool)
    states = all_states(model, {"pixel_values_videos": pixels, "padding_mask_videos": real})
    assert all(state.isfinite().all() for state in states.values())
    assert not states["pe_features"].any()
    model.train()
    model(pixels, real).pooler_output.sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_class_token_is_always_attended_to():
    """The first frame's padding says nothing of the class token, which stands before it."""
    model, pixels = encoder(), video(batch=1)
    first_is_padding = torch.tensor([[False, True, True, True, True]])
    attentions = run(model, pixels, first_is_padding, output_attentions=True).attentions
    assert all((layer[..., 0] > 0).all() for layer in attentions)
    assert not any(layer[..., 1].any() for layer in attentions)


def test_padding_masks_of_numbers():
    model, pixels = encoder(), video()
    real = torch.tensor([REAL["trailing"], REAL["holes"]])
    expected = run(model, pixels, real).pooler_output
    assert all(torch.equal(expected, run(model, pixels, real.to(dtype)).pooler_output) for dtype in (int, float))


def test_records_of_the_frame_tower_lie_at_their_frames():
    model, pixels = encoder(), video()
    real = torch.tensor([REAL["leading"], REAL["holes"]])
    padded = run(model, pixels, real, output_hidden_states=True, output_attentions=True)
    whole = run(model, pixels, output_hidden_states=True, output_attentions=True)
    for name in ("frame_hidden_states", "frame_attentions"):
        for with_padding, without in zip(getattr(padded, name), getattr(whole, name), strict=True):
            assert with_padding.shape == without.shape
            assert not with_padding[~real.flatten()].any()
            torch.testing.assert_close(with_padding[real.flatten()], without[real.flatten()])


# --------------------------------------------------------------------------------------- embeddings of single frames


@pytest.mark.parametrize("mask", ["all", "holes", "none"])
@pytest.mark.parametrize("make", [encoder, video_text])
def test_frame_features(make, mask):
    model, pixels, real = make(), video(), torch.tensor([REAL["all"], REAL[mask]])
    features = run(model.get_frame_features, pixels, real)
    assert features.shape == (2, 5, VISION["projection_dim"])
    torch.testing.assert_close(features.norm(dim=-1), real.float())
    tower = next(module for module in model.modules() if isinstance(module, PeVisionModel))
    embeds = run(tower, pixels[:, 0]).image_embeds
    torch.testing.assert_close(features[:, 0], nn.functional.normalize(embeds, dim=-1) * real[:, :1])

    text = {"input_ids": words()} if isinstance(model, PeVideoModel) else {}
    counts = count_frames(model)
    expected = all_states(model, {"pixel_values_videos": pixels, "padding_mask_videos": real, **text})
    assert counts == [real.sum() or 1]
    found = all_states(model, {"pe_features": features, "padding_mask_videos": real, **text})
    assert len(counts) == 1, "features stand in for the frame tower"
    frames = [name for name in expected if "frame_hidden_states" in name]
    assert frames
    assert set(expected) - set(found) == set(frames)
    assert_close("from features", {name: expected[name] for name in found}, found, EXACT)


def test_padding_of_frame_features_is_not_read():
    model, features, real = encoder(), torch.randn(2, 5, 20), torch.tensor([REAL["all"], REAL["holes"]])
    filled = features.masked_fill(~real[..., None], float("nan"))
    expected, found = (run(model, pe_features=each, padding_mask_videos=real) for each in (features, filled))
    assert torch.equal(expected.pooler_output, found.pooler_output)
    assert torch.equal(expected.last_hidden_state, found.last_hidden_state)


def test_frame_features_of_another_dtype():
    model, features = encoder(), torch.randn(2, 5, 20)
    expected = run(model, pe_features=features).pooler_output
    assert run(model.to(torch.bfloat16), pe_features=features).pooler_output.dtype == torch.bfloat16
    assert expected.dtype == torch.float32


def test_grouped_keys():
    """Fewer heads of keys serve several heads of queries each, as if every one were there as often as it is used."""
    few = encoder(num_key_value_heads=2)
    many = encoder(num_key_value_heads=4)
    weights = few.state_dict()
    for name, weight in weights.items():
        if "k_proj" in name or "v_proj" in name:
            weights[name] = weight.unflatten(0, (2, 12)).repeat_interleave(2, 0).flatten(0, 1)
    many.load_state_dict(weights)
    expected, found = (all_states(model, {"pixel_values_videos": video()}) for model in (many, few))
    assert_close("heads of keys", expected, found, REORDERED)


# ------------------------------------------------------------------------------------------------------- impossible

WRONG_INPUTS = {
    "no input": ({}, "exactly one of `pixel_values_videos` and `pe_features`"),
    "two inputs": ({"pixel_values_videos": video(), "pe_features": torch.zeros(2, 5, 20)}, "Give exactly one"),
    "an image": ({"pixel_values_videos": video()[:, 0]}, r"\(batch, frames, 3, height, width\).*got \(2, 3, 16, 16\)"),
    "channels last": ({"pixel_values_videos": video().movedim(2, -1)}, r"got \(2, 5, 16, 16, 3\). The video proc"),
    "no frames": ({"pixel_values_videos": video()[:, :0]}, r"at least one video and frame, got \(2, 0,"),
    "no videos": ({"pixel_values_videos": video()[:0]}, r"at least one video and frame, got \(0, 5,"),
    "features of another tower": ({"pe_features": torch.zeros(2, 5, 28)}, r"\(batch, frames, 20\).*got \(2, 5, 28\)"),
    "features of one frame": ({"pe_features": torch.zeros(2, 20)}, r"got \(2, 20\). `get_frame_features` returns"),
    "a longer mask": (
        {"pixel_values_videos": video(), "padding_mask_videos": torch.ones(2, 6)},
        r"`padding_mask_videos` of shape \(batch, frames\) = \(2, 5\), got \(2, 6\)",
    ),
    "a mask for features": (
        {"pe_features": torch.zeros(2, 5, 20), "padding_mask_videos": torch.ones(5)},
        r"\(2, 5\), got \(5,\)",
    ),
}


@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_impossible_videos(name):
    inputs, message = WRONG_INPUTS[name]
    with pytest.raises(ValueError, match=message):
        encoder()(**inputs)


def test_impossible_calls():
    model = video_text()
    with pytest.raises(ValueError, match="Give videos .*, `input_ids` or both"):
        model()
    for alone in ({"input_ids": words()}, {"pixel_values_videos": video()}):
        with pytest.raises(ValueError, match="`return_loss` needs videos and `input_ids`, pair by pair"):
            model(**alone, return_loss=True)
    with pytest.raises(ValueError, match="as many texts as videos.* got 2 videos and 3 texts"):
        model(words(3), video(2), return_loss=True)
    with pytest.raises(TypeError, match="interpolate_pos_encoding"):
        model(words(), video(), interpolate_pos_encoding=True)


# ------------------------------------------------------------------------------------------------- videos and texts


def test_modalities_alone():
    model, pixels, ids = video_text(), video(), words(3)
    both = run(model, ids, pixels)
    assert both.logits_video_text.shape == (2, 3)
    video_alone, text_alone = run(model, pixel_values_videos=pixels), run(model, ids)
    for name in ("video_embeds", "text_video_embeds"):
        alone, other = (video_alone, text_alone) if name == "video_embeds" else (text_alone, video_alone)
        assert torch.equal(getattr(both, name), getattr(alone, name))
        assert getattr(other, name) is None
    assert video_alone.logits_video_text is None
    assert video_alone.text_outputs is None
    assert text_alone.video_outputs is None


def test_features_are_projected():
    model, pixels, ids, mask = video_text(), video(), words(), torch.tensor([[1] * 7, [1, 1, 1, 0, 0, 0, 0]])
    both = run(model, ids, pixels, attention_mask=mask)
    texts, videos = run(model.get_text_features, ids, mask), run(model.get_video_features, pixels)
    assert torch.equal(texts.pooler_output, both.text_video_embeds)
    assert torch.equal(videos.pooler_output, both.video_embeds)
    assert torch.equal(texts.last_hidden_state, both.text_outputs.last_hidden_state)
    assert torch.equal(both.text_outputs.pooler_output, texts.last_hidden_state[:, 0])
    assert torch.equal(videos.last_hidden_state, both.video_outputs.last_hidden_state)
    features = run(model.get_frame_features, pixels)
    assert torch.equal(run(model.get_video_features, pe_features=features).pooler_output, both.video_embeds)


@pytest.mark.parametrize("scale, bias", [(1.0, 0.0), (-3.0, 0.25)])
def test_scale_and_bias_are_taken_as_they_are(scale, bias):
    model = video_text()
    with torch.no_grad():
        model.text_video_logit_scale.fill_(scale)
        model.text_video_logit_bias.fill_(bias)
    output = run(model, words(3), video())
    expected = (output.video_embeds @ output.text_video_embeds.T) * scale + bias
    torch.testing.assert_close(output.logits_video_text, expected)


def test_sigmoid_loss():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0]], requires_grad=True)
    loss = sigmoid_loss(logits)
    p = logits.detach().sigmoid()
    torch.testing.assert_close(loss.detach(), -(p[0, 0] * (1 - p[0, 1]) * (1 - p[1, 0]) * p[1, 1]).log() / 2)
    loss.backward()
    torch.testing.assert_close(logits.grad, (p - torch.eye(2)) / 2)
    with pytest.raises(ValueError, match="got 2 videos and 1 texts"):
        sigmoid_loss(logits[:, :1])
    extreme = sigmoid_loss(torch.tensor([[-1e4, 1e4], [1e4, -1e4]], dtype=torch.float16))
    assert extreme.dtype == torch.float32
    assert extreme.isfinite()


def test_texts_of_unequal_length():
    model, ids = video_text(), words(2)
    mask = torch.tensor([[1] * 7, [1, 1, 1, 1, 0, 0, 0]])
    padded = run(model.get_text_features, ids, mask).pooler_output
    alone = run(model.get_text_features, ids[1:, :4]).pooler_output
    torch.testing.assert_close(padded[1:], alone)


@pytest.mark.parametrize("tied", [True, False])
def test_text_embeddings_come_from_before_the_norm(tied):
    """Whether transformers takes the last hidden state before the norm or after it (`tie_last_hidden_states`)."""
    model = video_text()
    model.text_model.config.tie_last_hidden_states = tied
    ids = words()
    output = run(model.get_text_features, ids, output_hidden_states=True)
    plain = transformers.ModernBertModel(model.config.text_config).eval()
    plain.load_state_dict(model.text_model.state_dict())
    recorded: list[torch.Tensor] = []
    plain.layers[-1].register_forward_hook(lambda module, inputs, output: recorded.append(output))
    normed = run(plain, ids).last_hidden_state
    torch.testing.assert_close(output.last_hidden_state, recorded[0])
    assert (output.last_hidden_state - normed).abs().max() > NOTICEABLE
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert len(output.hidden_states) == TEXT["num_hidden_layers"] + 1
    passing = video_text(normalize_text=True)
    passing.load_state_dict(model.state_dict())
    torch.testing.assert_close(run(passing.get_text_features, ids).last_hidden_state, normed)


def test_width_of_the_compared_embeddings():
    model = video_text(projection_dim=10)
    output = run(model, words(), video())
    assert output.video_embeds.shape == output.text_video_embeds.shape == (2, 10)
    assert video_text().text_video_head.proj.out_features == TEXT["hidden_size"]


def test_towers_are_invariant_to_the_batch():
    model, pixels, ids = video_text(), video(3), words(3)
    together = run(model, ids, pixels)
    alone = [run(model, ids[index : index + 1], pixels[index : index + 1]) for index in range(3)]
    for name in ("video_embeds", "text_video_embeds"):
        parts = torch.cat([getattr(output, name) for output in alone])
        assert_close(name, {"batch": getattr(together, name)}, {"batch": parts}, REORDERED)


def test_attentions_of_text_leave_the_backend_as_it_was():
    model = video_text(attn_implementation="sdpa")
    output = run(model, words(), video(), output_attentions=True)
    assert [tuple(layer.shape) for layer in output.text_outputs.attentions] == [(2, 3, 7, 7)] * 4
    assert model.text_model.config._attn_implementation == "sdpa"
    with pytest.raises(IndexError):
        model.get_text_features(words() + TEXT["vocab_size"], output_attentions=True)
    assert model.text_model.config._attn_implementation == "sdpa"


def test_main_inputs():
    assert (PeVideoModel.main_input_name, PeVideoEncoder.main_input_name) == ("input_ids", "pixel_values_videos")


# ---------------------------------------------------------------------------------------------------- configuration


def published(**vision):
    """A configuration as published directories have it."""
    tower = {
        "_name_or_path": "",
        "architecture": "vit_pe_core_large_patch14_336",
        "do_pooling": True,
        "global_pool": "map",
        "initializer_range": 0.02,
        "model_args": None,
        "model_type": "timm_wrapper",
        **vision,
    }
    video = {"model_type": "pe_video_encoder", "num_hidden_layers": 4, "vision_config": tower}
    return {"model_type": "pe_video", "text_config": {"model_type": "modernbert"}, "video_config": video}


@pytest.mark.parametrize(
    "vision, width",
    [
        ({}, 1024),
        ({"num_classes": 1024}, 1024),
        ({"num_classes": 1024, "label_names": ["LABEL_0", "LABEL_1"]}, 1024),
        ({"num_labels": 512, "num_classes": 1024}, 512),
        ({"num_classes": 1024, "label_names": [f"LABEL_{index}" for index in range(28)]}, 28),
        ({"num_classes": 768}, 768),
    ],
)
def test_what_published_directories_say(vision, width, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(published(**vision)))
    config = PeVideoConfig.from_pretrained(tmp_path)
    tower = config.video_config.vision_config
    assert type(tower) is PeVisionConfig
    assert (tower.hidden_size, tower.num_hidden_layers, tower.image_size, tower.patch_size) == (1024, 24, 336, 14)
    assert tower.projection_dim == width
    assert (config.video_config.num_hidden_layers, config.video_config.rope_parameters["rope_theta"]) == (4, 20000)
    text = config.text_config
    assert (text.hidden_size, text.num_hidden_layers, text.num_attention_heads) == (1024, 22, 16)
    with torch.device("meta"):
        model = PeVideoModel(config)
    assert model.video_encoder.embedder.proj.weight.shape == (1792, width)

    config.save_pretrained(tmp_path / "again")
    assert PeVideoConfig.from_pretrained(tmp_path / "again").to_dict() == config.to_dict()
    assert config.to_dict()["video_config"]["vision_config"]["model_type"] == "timm_wrapper"


def test_names_on_disk():
    """Those of transformers, at the size of a published model with four layers."""
    config = PeVideoConfig(video_config={"num_hidden_layers": 4})
    with torch.device("meta"):
        ours, theirs = PeVideoModel(config).state_dict(), stock_model(config, PeVisionConfig()).state_dict()
    assert len(ours) == 510
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: tensor.shape for n, tensor in theirs.items()}


def test_heads_of_keys_are_those_of_queries():
    assert PeVideoEncoderConfig(**{**ENCODER, "num_key_value_heads": None}).num_key_value_heads == 4
    config = PeVideoEncoderConfig(rope_parameters={"rope_theta": 500.0})
    assert config.rope_parameters == {"rope_theta": 500.0, "rope_type": "default"}


BAD_CONFIGS = {
    "heads of keys": ({"num_key_value_heads": 3}, r"`num_attention_heads` \(4\) must be a multiple of .* \(3\)"),
    "odd heads": ({"head_dim": 11}, "`head_dim` must be even.* got 11"),
    "positions": ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1.0}}, "got 'linear'"),
    "no embeddings": (
        {"vision_config": {"architecture": "vit_pe_lang_large_patch14_448"}},
        r"\(vit_pe_lang_large_patch14_448\) has `projection_dim` 0. Take a tower of PE core",
    ),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_configurations_that_make_no_sense(name):
    fields, message = BAD_CONFIGS[name]
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        PeVideoEncoderConfig(**{**ENCODER, **fields})


def test_other_text_towers():
    with pytest.raises((ValueError, StrictDataclassError), match="must be of ModernBERT, got 'bert'"):
        PeVideoConfig(text_config={"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2})


# ------------------------------------------------------------------------------------------------ beside transformers


class TimmStandIn(nn.Module):
    """Our frame tower as transformers calls one of timm, which need not be installed."""

    def __init__(self, config: PeVisionConfig):
        super().__init__()
        self.timm_model = PeVisionModel(config)

    def forward(self, pixel_values):
        return transformers.modeling_outputs.ImageClassifierOutput(logits=self.timm_model(pixel_values).image_embeds)


def skip_where_configurations_need_timm():
    try:
        stock_configuration.PeVideoEncoderConfig()
    except ImportError:
        pytest.skip("this version of transformers needs timm for its configuration too")


def stock_model(config: PeVideoConfig, tower: PeVisionConfig):
    """transformers' model with our frame tower in it."""
    skip_where_configurations_need_timm()
    theirs = stock_configuration.PeVideoConfig(**config.to_dict(), attn_implementation="eager")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stock.AutoModelForImageClassification, "from_config", lambda config: TimmStandIn(tower))
        return stock.PeVideoModel(theirs).eval()


@pytest.fixture
def with_our_tower(monkeypatch):
    """transformers builds its models with our frame tower."""
    skip_where_configurations_need_timm()
    monkeypatch.setattr(
        stock.AutoModelForImageClassification, "from_config", lambda config: TimmStandIn(PeVisionConfig(**VISION))
    )


def same_videos(theirs, ours):
    """What transformers computes right: the video encoder without padding; its texts have been through a norm."""
    pixels, ids = video(), words()
    expected, found = run(theirs, ids, pixels), run(ours, ids, pixels)
    for name in ("video_embeds",):
        assert_close(name, {name: getattr(expected, name)}, {name: getattr(found, name)}, REORDERED)
    for name in ("last_hidden_state", "pooler_output"):
        pair = ({name: getattr(output.video_outputs, name)} for output in (expected, found))
        assert_close(name, *pair, REORDERED)
    assert (expected.text_video_embeds - found.text_video_embeds).abs().max() > NOTICEABLE
    ours_normed = PeVideoModel(PeVideoConfig(**{**ours.config.to_dict(), "normalize_text": True})).eval()
    ours_normed.load_state_dict(ours.state_dict())
    logits = run(ours_normed, ids, pixels).logits_video_text
    assert_close("with the norm", {"logits": expected.logits_video_text}, {"logits": logits}, REORDERED)


def test_transformers_loads_ours(with_our_tower, tmp_path):
    ours = SPEC.build(MODEL)
    ours.save_pretrained(tmp_path)
    theirs, info = stock.PeVideoModel.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert type(theirs.config) is stock_configuration.PeVideoConfig
    assert not any(info.values()), info
    assert theirs.config.video_config.vision_config.num_labels == VISION["projection_dim"]
    assert set(theirs.state_dict()) == set(load_file(tmp_path / "model.safetensors"))
    same_videos(theirs, ours)


def test_loads_what_transformers_saves(tmp_path):
    torch.manual_seed(0)
    theirs = randomise(stock_model(SPEC.config(MODEL), PeVisionConfig(**VISION)), 0)
    theirs.save_pretrained(tmp_path)
    ours, info = PeVideoModel.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not any(info.values()), info
    same_videos(theirs, ours)


def test_real_timm(tmp_path):
    pytest.importorskip("timm", reason="transformers' model as it is needs timm, which vidformers does without")
    ours = SPEC.build(MODEL)
    ours.save_pretrained(tmp_path / "ours")
    theirs = stock.PeVideoModel.from_pretrained(tmp_path / "ours", attn_implementation="eager")
    same_videos(theirs, ours)
    theirs.save_pretrained(tmp_path / "theirs")
    same_videos(theirs, PeVideoModel.from_pretrained(tmp_path / "theirs", attn_implementation="eager"))


def test_stock_loss_gives_negatives_no_gradient():
    """Why the loss isn't that of transformers: pairs that don't match had no slope."""
    logits = torch.randn(3, 3, requires_grad=True)
    sigmoid_loss(logits).backward()
    assert (logits.grad.diagonal() < 0).all()
    assert (logits.grad[~torch.eye(3, dtype=torch.bool)] > 0).all()


# ------------------------------------------------------------------------------ directories of audio-video models


@pytest.fixture(scope="module")
def audio_video(tmp_path_factory):
    """A directory of transformers' PE audio-video model, with our video model in it."""
    small = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 4}
    small["head_dim"] = 12
    codec = {"encoder_hidden_size": 2, "downsampling_ratios": [2, 2], "decoder_hidden_size": 16, "n_codebooks": 2}
    codec |= {"codebook_size": 8, "codebook_dim": 4}
    config = transformers.PeAudioVideoConfig(
        text_config={**TEXT, "model_type": "modernbert"},
        audio_video_config={**small, "video_config": ENCODER, "audio_config": {**small, "dac_config": codec}},
    )
    torch.manual_seed(0)
    model = randomise(transformers.PeAudioVideoModel(config).eval(), 0)
    folder = tmp_path_factory.mktemp("audio-video")
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize("tied", [True, False])
def test_video_and_text_of_an_audio_video_model(audio_video, tied, tmp_path, caplog):
    """Files hold weights that several towers share once, or in every place."""
    folder, whole = audio_video
    if not tied:
        save_file(
            {name: tensor.clone() for name, tensor in whole.state_dict().items()},
            tmp_path / "model.safetensors",
            metadata={"format": "pt"},
        )
        (tmp_path / "config.json").write_text((folder / "config.json").read_text())
        folder = tmp_path
    names = set(load_file(folder / "model.safetensors"))
    assert ("video_model.text_model.final_norm.weight" in names) is not tied

    with caplog.at_level(logging.WARNING):
        model, info = PeVideoModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert model.config.model_type == "pe_video"
    inputs = {"input_ids": words(), "pixel_values_videos": video()}
    expected, found = (all_states(each, inputs) for each in (whole.video_model, model))
    assert_close("the video model in the whole and by itself", expected, found, REORDERED)

    model.save_pretrained(tmp_path / "video")
    again, info = PeVideoModel.from_pretrained(tmp_path / "video", output_loading_info=True)
    assert not any(info.values()), info
    assert_close("saved by itself", found, all_states(again, inputs), REORDERED)


def test_commands_take_the_video_and_text_part(audio_video, tmp_path):
    """`vidformers embed` and `classify` with the published repositories, which hold audio-video models."""
    folder = shutil.copytree(audio_video[0], tmp_path / "audio-video")
    save_modernbert_tokenizer(tmp_path / "tokenizer")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    processor = PeVideoVideoProcessor(size={"height": 16, "width": 16}, num_frames=4, do_sample_frames=True)
    whole = transformers.PeAudioVideoProcessor(transformers.PeAudioFeatureExtractor(), processor, tokenizer)
    whole.save_pretrained(folder)
    path, labels = write_video(tmp_path / "video.mp4", num_frames=20), ["a dog", "the cat"]
    model = PeVideoModel.from_pretrained(folder)
    pixels, texts = processor(path, return_tensors="pt"), tokenizer(labels, padding=True, return_tensors="pt")
    output = run(model, **pixels, input_ids=texts["input_ids"], attention_mask=texts["attention_mask"])
    (embedded,) = VideoEmbedder.from_pretrained(folder).embed({"clip": path})
    torch.testing.assert_close(embedded.embedding, unit_length(output.video_embeds[0]))
    shares = Classifier(folder).classify(path, labels)
    assert shares == pytest.approx(dict(zip(labels, output.logits_video_text[0].softmax(-1).tolist(), strict=True)))


def test_what_is_left_of_an_audio_video_model_is_said_once(audio_video, tmp_path, monkeypatch):
    from vidformers.models.pe_video import configuration_pe_video

    said = []
    monkeypatch.setattr(configuration_pe_video.logger, "warning_once", said.append)
    PeVideoModel.from_pretrained(audio_video[0])
    assert len(said) == 1
    assert all(name in said[0] for name in ("audio_model", "audio_video_encoder", str(audio_video[0])))


def test_dtype_of_an_audio_video_model(audio_video, tmp_path):
    audio_video[1].save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    assert PeVideoModel.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_encoder_of_directories(audio_video, tmp_path):
    with pytest.raises(ValueError, match="`PeVideoModel.from_pretrained`, and take its `video_encoder`"):
        PeVideoEncoder.from_pretrained(audio_video[0])
    model = SPEC.build(MODEL)
    model.save_pretrained(tmp_path)
    alone, info = PeVideoEncoder.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not info["missing_keys"]
    inputs = {"pixel_values_videos": video()}
    assert_close("the encoder", all_states(model.video_encoder, inputs), all_states(alone, inputs), EXACT)
