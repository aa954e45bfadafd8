"""VideoPrism beyond the shared tests: paddings, text, poolers, embeddings and losses, and transformers beside it."""

import math
import unittest

import pytest
import torch
import transformers
from accelerate import cpu_offload

from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin
from tests.harness.citizen import CitizenMixin, answers
from tests.harness.compare import assert_close
from tests.harness.config import ConfigMixin
from tests.harness.family_spec import all_states, randomise
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import ParityMixin
from tests.harness.positions import PositionsMixin
from tests.harness.tolerances import EXACT, NOTICEABLE, REORDERED
from tests.videoprism.spec import CLIP_MODEL, SPEC, TEXT, VISION
from vidformers import (
    VideoPrismClipModel,
    VideoPrismConfig,
    VideoPrismForVideoClassification,
    VideoPrismTextConfig,
    VideoPrismTextModel,
    VideoPrismVideoModel,
    VideoPrismVisionConfig,
    VideoPrismVisionModel,
)
from vidformers.layers.losses import contrastive_loss
from vidformers.layers.positions import resize_position_grid
from vidformers.models.videoprism.modeling_videoprism_clip import sinusoidal_positions


class VideoPrismConfigTest(ConfigMixin, AutoMixin, unittest.TestCase):
    spec = SPEC


class VideoPrismModelTest(ModelingMixin, AttentionMixin, PositionsMixin, unittest.TestCase):
    spec = SPEC


class VideoPrismCitizenTest(CitizenMixin, unittest.TestCase):
    """What tools do to modules works."""

    spec = SPEC


class VideoPrismGoldenTest(ParityMixin, unittest.TestCase):
    """What the original code computed comes out."""

    spec = SPEC


def build(model_class, config):
    torch.manual_seed(0)
    return randomise(model_class(config).eval(), 0)


def vision(model_class=VideoPrismVisionModel, **fields):
    return build(model_class, VideoPrismVisionConfig(**{**VISION, **fields}))


def text(**fields):
    return build(VideoPrismTextModel, VideoPrismTextConfig(**{**TEXT, **fields}))


def clip(vision_fields=None, text_fields=None, **fields):
    towers = {"vision_config": {**VISION, **(vision_fields or {})}, "text_config": {**TEXT, **(text_fields or {})}}
    return build(VideoPrismClipModel, VideoPrismConfig(**towers, **fields))


def video(batch=2, frames=4, height=16, width=16, seed=0):
    return torch.rand(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def words(batch=3, length=7, seed=0):
    return torch.randint(1, TEXT["vocab_size"], (batch, length), generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ configurations


@pytest.mark.parametrize("size", [24, [24, 16], (24, 16)])
@pytest.mark.parametrize("tubelet", [[1, 8, 8], (1, 8, 8)])
def test_sizes_of_every_type(size, tubelet, tmp_path):
    config = VideoPrismVisionConfig(image_size=size, tubelet_size=tubelet)
    assert config.position_grid == ((3, 3) if size == 24 else (3, 2))
    config.save_pretrained(tmp_path)
    assert VideoPrismVisionConfig.from_pretrained(tmp_path).position_grid == config.position_grid


@pytest.mark.parametrize(
    ("config_class", "fields", "message"),
    [
        (VideoPrismVisionConfig, {"tubelet_size": (2, 18, 18)}, "one frame of a square patch"),
        (VideoPrismVisionConfig, {"tubelet_size": (1, 18, 9)}, "one frame of a square patch"),
        (VideoPrismVisionConfig, {"image_size": [288, 288, 3]}, "height and width"),
        (VideoPrismVisionConfig, {"image_size": 10}, "at least one frame"),
        (VideoPrismVisionConfig, {"num_attention_heads": 7}, "multiple of `num_attention_heads`"),
        (VideoPrismTextConfig, {"attn_logit_softcapping": -1.0}, "0 for no cap"),
        (VideoPrismTextConfig, {"norm_policy": "post"}, "primer_hybrid"),
        (VideoPrismConfig, {"text_config": {"hidden_size": 60}}, "one `hidden_size`"),
    ],
)
def test_impossible_configurations(config_class, fields, message):
    with pytest.raises(Exception, match=message):
        config_class(**fields)


# --------------------------------------------------------------------------------------------------------- video


def test_padding_frames_change_nothing_at_real_ones():
    """Real frames of a padded video are those of the short video, when both have the positions of the long one."""
    model = vision()
    pixels = video(frames=4)
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])
    other = pixels.clone()
    other[0, 2:] = 7.0
    with torch.no_grad():
        one, two = (model(each, padding_mask_videos=mask).last_hidden_state for each in (pixels, other))
        every = model(pixels, padding_mask_videos=torch.ones(2, 4)).last_hidden_state
        plain = model(pixels).last_hidden_state
    kept = 2 * 16
    assert_close("contents of padding", {"real": one[0, :kept]}, {"real": two[0, :kept]}, REORDERED)
    assert_close("nothing padded", {"all": plain}, {"all": every}, REORDERED)
    assert (one[0, :kept] - plain[0, :kept]).abs().max() > NOTICEABLE


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_samples_of_nothing_but_padding(attention, dtype):
    model = clip().to(dtype)
    model.set_attn_implementation(attention)
    inputs = {"pixel_values_videos": video().to(dtype), "input_ids": words(2), "return_loss": True}
    masks = {"padding_mask_videos": torch.zeros(2, 4), "attention_mask": torch.tensor([[0] * 7, [1] * 7])}
    output = model(**inputs, **masks)
    output.loss.backward()
    assert all(value.isfinite().all() for value in (output.loss, output.video_embeds, output.text_embeds))
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_padding_mask_of_another_length():
    with pytest.raises(ValueError, match="frames = 4"):
        vision()(video(), padding_mask_videos=torch.ones(2, 5))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (video()[0], "Expected `pixel_values_videos` of shape"),
        (video()[:, :, :2], "Expected `pixel_values_videos` of shape"),
        (video(height=18), "Resize to multiples of 4"),
        (video()[:, :0], "at least one"),
        (video(frames=5), "interpolate_pos_encoding=True"),
        (video(height=24), "interpolate_pos_encoding=True"),
    ],
)
def test_impossible_videos(pixels, message):
    with pytest.raises(ValueError, match=message):
        vision()(pixels)


def test_other_sizes_have_resized_tables():
    """A table that is resized beforehand gives the same; of three axes none may be another's."""
    model = vision(image_size=[16, 24], num_frames=5)
    pixels = video(frames=3, height=8, width=32)
    wanted = vision(image_size=[8, 32], num_frames=3)
    state = model.state_dict()
    state["spatial_embeddings.position_embeddings"] = resize_position_grid(
        state["spatial_embeddings.position_embeddings"], (4, 6), (2, 8)
    )
    state["temporal_embeddings.position_embeddings"] = resize_position_grid(
        state["temporal_embeddings.position_embeddings"], (5, 1), (3, 1)
    )
    wanted.load_state_dict(state)
    with torch.no_grad():
        expected, actual = wanted(pixels), model(pixels, interpolate_pos_encoding=True)
    assert_close("resized", {"out": expected.last_hidden_state}, {"out": actual.last_hidden_state}, REORDERED)


def test_no_cap():
    """A cap of 0 is none, and what a cap far above all scores gives."""
    pixels = video()
    outputs = []
    for cap in (0.0, 0, 1e6, 1.0):
        with torch.no_grad():
            outputs.append({"out": vision(attn_logit_softcapping=cap)(pixels).last_hidden_state})
    assert_close("0 and 0.0", outputs[0], outputs[1], REORDERED)
    assert_close("no cap and a high one", outputs[0], outputs[2], REORDERED)
    assert (outputs[0]["out"] - outputs[3]["out"]).abs().max() > NOTICEABLE


def test_spatial_features_follow_the_norm():
    model = vision()
    with torch.no_grad():
        output = model(video())
        expected = model.layernorm1(output.last_spatial_hidden_state).unflatten(0, (2, 4)).flatten(1, 2)
    assert torch.equal(output.spatial_features, expected)
    assert output.last_spatial_hidden_state.shape == (8, 16, 32)
    assert output.last_temporal_hidden_state.shape == (32, 4, 32)


# -------------------------------------------------------------------------------------------------------- pooler


def pool_by_definition(head, tokens):
    """(B, Q, D), with every token projected, in float64."""
    query = head.q_proj(head.pooling_attention_query).expand(len(tokens), -1, -1)
    query, key, value = (
        states.unflatten(-1, (head.num_heads, head.head_dim)).transpose(1, 2)
        for states in (query, head.k_proj(tokens), head.v_proj(tokens))
    )
    query = query * (math.log2(math.e) / math.sqrt(head.head_dim)) * torch.log1p(head.per_dim_scale.exp())
    probabilities = (query @ key.transpose(-1, -2)).softmax(-1)
    return head.o_proj((probabilities @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    "fields", [{}, {"num_pooling_queries": 3}, {"pooler_head_dim": 5}, {"qkv_bias": False}], ids=str
)
def test_pooler(fields):
    model = vision(VideoPrismVideoModel, **fields).double()
    tokens = torch.randn(2, 9, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected, actual = pool_by_definition(model.head, tokens), model.head(tokens)
    assert actual.shape == (2, fields.get("num_pooling_queries", 1), 32)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    wanted = torch.autograd.grad(expected.square().sum(), list(model.head.parameters()))
    found = torch.autograd.grad(actual.square().sum(), list(model.head.parameters()))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_queries", [1, 3])
def test_frame_embeddings_pool_single_frames(num_queries):
    model = vision(VideoPrismVideoModel, num_pooling_queries=num_queries)
    with torch.no_grad():
        output = model(video(), output_frame_embeddings=True)
        frames = output.last_hidden_state.unflatten(1, (4, 16))
        expected = torch.stack([model._pool(frames[:, index]) for index in range(4)], 1)
    assert output.pooler_output.shape == ((2, 32) if num_queries == 1 else (2, 3, 32))
    torch.testing.assert_close(output.frame_embeddings, expected)
    torch.testing.assert_close(output.frame_embeddings.norm(dim=-1), torch.ones(expected.shape[:-1]))


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_auxiliary_layers(num_layers):
    model = vision(VideoPrismVideoModel, num_auxiliary_layers=num_layers)
    with torch.no_grad():
        output = model(video(), output_hidden_states=True)
    assert len(output.auxiliary_hidden_states) == num_layers + 1
    same = torch.equal(output.last_hidden_state, output.spatiotemporal_features)
    assert same == (num_layers == 0)


def test_one_query_where_one_is_needed():
    with pytest.raises(ValueError, match="num_pooling_queries"):
        clip({"num_pooling_queries": 2})


# ---------------------------------------------------------------------------------------------------------- text


def test_positions_of_text():
    """Sines and cosines whose wavelengths reach 2π·10000, as in the original: exponents i / (n - 1)."""
    table = sinusoidal_positions(torch.arange(90), 32)
    for position in (0, 1, 63, 89):
        for index in range(16):
            angle = position * 10000 ** (-index / 15)
            assert table[position, index].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 16 + index].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_causality():
    """What follows a token changes it only without causality; the embedding sees all."""
    first, second = words(1), words(1)
    second[0, 4:] = 1 + second[0, 4:] % 40
    for causal in (True, False):
        model = text(enable_causal_attention=causal)
        with torch.no_grad():
            one, two = (model(each).last_hidden_state for each in (first, second))
        unchanged = (one[0, :4] - two[0, :4]).abs().max() < 1e-6
        assert unchanged == causal
        assert (one[0, -1] - two[0, -1]).abs().max() > NOTICEABLE


@pytest.mark.parametrize("causal", [True, False])
def test_padding_of_text(causal):
    """A padded text has the embedding of the short one; so does a mask of ones and none."""
    model, ids = text(enable_causal_attention=causal), words(1)
    padded = torch.cat([ids, torch.zeros(1, 70, dtype=torch.long)], 1)
    mask = (padded > 0).long()
    with torch.no_grad():
        alone, masked, longer = model(ids), model(ids, torch.ones_like(ids)), model(padded, mask)
    expected = {"embedding": alone.pooler_output, "tokens": alone.last_hidden_state[:, :7]}
    for output in (masked, longer):
        tokens = output.last_hidden_state[:, :7]
        assert_close("padding", expected, {"embedding": output.pooler_output, "tokens": tokens}, REORDERED)


def test_embeddings_in_the_place_of_tokens():
    model, ids = text(), words()
    with torch.no_grad():
        expected = all_states(model, {"input_ids": ids})
        embeddings = model.get_input_embeddings()(ids)
        positions = torch.arange(7)[None]
        actual = all_states(model, {"inputs_embeds": embeddings, "position_ids": positions})
        moved = model(ids, position_ids=positions + 1).pooler_output
    assert_close("embeddings given", expected, actual, REORDERED)
    assert (moved - expected["pooler_output"]).abs().max() > NOTICEABLE
    for wrong in ({}, {"input_ids": ids, "inputs_embeds": embeddings}):
        with pytest.raises(ValueError, match="exactly one"):
            model(**wrong)


# --------------------------------------------------------------------------------------------------- video and text


def test_modalities_alone():
    model = clip()
    with torch.no_grad():
        both = model(video(), words())
        of_video, of_text = model(pixel_values_videos=video()), model(input_ids=words())
        video_features, text_features = model.get_video_features(video()), model.get_text_features(words())
    assert of_video.text_embeds is None
    assert of_text.video_embeds is None
    assert of_video.logits_per_video is None
    for embeds in (of_video.video_embeds, video_features.pooler_output):
        assert_close("video", {"embeds": both.video_embeds}, {"embeds": embeds}, REORDERED)
    for embeds in (of_text.text_embeds, text_features.pooler_output):
        assert_close("text", {"embeds": both.text_embeds}, {"embeds": embeds}, REORDERED)
    assert both.video_embeds.shape == (2, 32)
    assert both.text_embeds.shape == (3, 32)
    with pytest.raises(ValueError, match="or both"):
        model()
    with pytest.raises(ValueError, match="pair by pair"):
        model(video(), return_loss=True)


def test_towers_are_invariant_to_the_batch():
    model = clip()
    with torch.no_grad():
        together = model(video(3), words(3))
        for index in range(3):
            alone = model(video(3)[index : index + 1], words(3)[index : index + 1])
            for name in ("video_embeds", "text_embeds"):
                part = {name: getattr(together, name)[index : index + 1]}
                assert_close(f"sample {index}", part, {name: getattr(alone, name)}, REORDERED)


@pytest.mark.parametrize("temperature", [None, 0.1, torch.tensor(2.0)])
def test_similarities(temperature):
    model = clip()
    with torch.no_grad():
        output = model(video(), words(), temperature=temperature)
    expected = output.video_embeds @ output.text_embeds.T / (1 if temperature is None else temperature)
    torch.testing.assert_close(output.similarity_logits_per_video, expected)
    torch.testing.assert_close(output.similarity_logits_per_text, expected.T)
    torch.testing.assert_close(output.logits_per_video.sum(0), torch.ones(3))
    torch.testing.assert_close(output.logits_per_text.sum(0), torch.ones(2))


def test_learned_temperature_kept_elsewhere():
    built, inputs = SPEC.build(CLIP_MODEL, logit_scale_init_value=2.0), SPEC.inputs(CLIP_MODEL)
    expected = answers(built, inputs)
    cpu_offload(built)
    assert "compare" in expected
    assert_close("offloaded", expected, answers(built, inputs), EXACT)


def test_learned_temperature():
    model = clip(logit_scale_init_value=1.5)
    same = model.load_state_dict({**clip().state_dict(), "logit_scale": torch.tensor([1.5])})
    assert not any(same)
    with torch.no_grad():
        plain, scaled, given = (
            clip()(video(), words()),
            model(video(), words()),
            model(video(), words(), temperature=1.0),
        )
    expected = plain.similarity_logits_per_video
    torch.testing.assert_close(scaled.similarity_logits_per_video, expected * math.exp(1.5), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given.similarity_logits_per_video, expected, rtol=1e-4, atol=1e-5)
    model(video(), words(2), return_loss=True).loss.backward()
    assert model.logit_scale.grad.abs() > 0


def test_contrastive_loss():
    similarity = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0], [-2.0, 0.3, 0.7]], dtype=torch.float64)
    rows = [-math.log(math.exp(row[i]) / sum(map(math.exp, row))) for i, row in enumerate(similarity.tolist())]
    columns = [-math.log(math.exp(row[i]) / sum(map(math.exp, row))) for i, row in enumerate(similarity.T.tolist())]
    assert contrastive_loss(similarity).item() == pytest.approx((sum(rows) + sum(columns)) / 6, abs=1e-6)
    with pytest.raises(ValueError, match="2 videos and 3 texts"):
        contrastive_loss(similarity[:2])


# --------------------------------------------------------------------------------------- transformers beside it


def test_text_of_transformers_with_the_right_table(tmp_path):
    """Equal once its position table is replaced, and not before: the original's table is ours."""
    ours = text()
    ours.save_pretrained(tmp_path)
    theirs = transformers.VideoPrismTextModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    inputs = {"input_ids": words(), "attention_mask": torch.ones(3, 7)}
    with torch.no_grad():
        expected, wrong = ours(**inputs).pooler_output, theirs(**inputs).pooler_output
        theirs.embeddings.position_embedding.copy_(sinusoidal_positions(torch.arange(64), 32))
        right = theirs(**inputs).pooler_output
    assert (expected - wrong).abs().max() > NOTICEABLE
    assert_close("the right table", {"embeds": expected}, {"embeds": right}, REORDERED)


def test_tables_in_files_are_ignored(tmp_path):
    theirs = transformers.VideoPrismClipModel(transformers.VideoPrismConfig(vision_config=VISION, text_config=TEXT))
    theirs.save_pretrained(tmp_path)
    ours, info = VideoPrismClipModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert not any("position_embedding" in name and "text" in name for name in ours.state_dict())
    theirs.text_model.embeddings.position_embedding.copy_(sinusoidal_positions(torch.arange(64), 32))
    theirs.set_attn_implementation("eager")
    inputs = {"pixel_values_videos": video(), "input_ids": words(), "attention_mask": torch.ones(3, 7)}
    with torch.no_grad():
        expected, actual = theirs.eval()(**inputs), ours(**inputs)
    for name in ("video_embeds", "text_embeds", "logits_per_video", "logits_per_text"):
        assert_close("transformers", {name: getattr(expected, name)}, {name: getattr(actual, name)}, REORDERED)


def test_classifier_losses():
    single = vision(VideoPrismForVideoClassification, num_labels=5)
    labels = torch.tensor([1, 4])
    output = single(video(), labels=labels)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    several = vision(VideoPrismForVideoClassification, num_labels=5, problem_type="multi_label_classification")
    targets = torch.tensor([[1.0, 0, 0, 1, 0], [0, 0, 1, 1, 1]])
    output = several(video(), labels=targets)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, targets)
    torch.testing.assert_close(output.loss, expected)


def test_giant_text():
    """Norms on both sides, and a pooler and MLPs of other widths than four times the model's."""
    model = clip({"intermediate_size": 40, "pooler_head_dim": 32}, {"norm_policy": "primer_hybrid"})
    plain = clip({"intermediate_size": 40, "pooler_head_dim": 32})
    added = set(model.state_dict()) - set(plain.state_dict())
    ends = {name.split(".", 3)[-1] for name in added}
    assert ends == {f"{norm}_post_layernorm.{part}" for norm in ("attention", "mlp") for part in ("weight", "bias")}
    with torch.no_grad():
        hybrid, pre = model(video(), words()), plain(video(), words())
    assert (hybrid.text_embeds - pre.text_embeds).abs().max() > NOTICEABLE
