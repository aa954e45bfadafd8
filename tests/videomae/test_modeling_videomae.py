"""What VideoMAE alone has: masks, targets, positions of a trained size, norms of its two sources, its errors."""

import math
import unittest
import warnings
from unittest.mock import patch

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from torch import nn

from tests.harness.attention import AttentionMixin
from tests.harness.auto import AutoMixin
from tests.harness.citizen import CitizenMixin
from tests.harness.compare import assert_close
from tests.harness.config import ConfigMixin
from tests.harness.family_test import over, presets
from tests.harness.modeling import ModelingMixin
from tests.harness.parity import COMMITTED, ParityMixin, golden_folders, recorded
from tests.harness.positions import PositionsMixin
from tests.harness.tolerances import EXACT, NOTICEABLE, REORDERED
from tests.videomae.spec import CLASSIFIER, MODEL, PRETRAINING, SPEC, TINY
from vidformers import (
    VideoMAEConfig,
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    random_mask,
    tube_mask,
)
from vidformers.layers.patchify import Grid
from vidformers.models.videomae.masking_videomae import split_tokens
from vidformers.models.videomae.modeling_videomae_pretraining import IMAGENET_MEAN, IMAGENET_STD


class VideoMAEConfigTest(ConfigMixin, AutoMixin, unittest.TestCase):
    spec = SPEC


class VideoMAEModelTest(ModelingMixin, AttentionMixin, PositionsMixin, unittest.TestCase):
    spec = SPEC

    @over(presets)
    def test_presets_are_buildable(self, preset):
        """transformers fills a large table entry by entry in Python, for six seconds; here its size counts."""
        module = "transformers.models.videomae.modeling_videomae"
        with patch(f"{module}.get_sinusoid_encoding_table", lambda count, width: torch.empty(1, count, width)):
            ModelingMixin.test_presets_are_buildable(self, preset)


class VideoMAECitizenTest(CitizenMixin, unittest.TestCase):
    """What tools do to modules works."""

    spec = SPEC


class VideoMAEGoldenTest(ParityMixin, unittest.TestCase):
    """What the original code computed comes out."""

    spec = SPEC


GRID = (3, 4, 3)
MASK = tube_mask(GRID, 0.7, batch_size=2, seed=3)


def video(batch=2, frames=6, height=32, width=24, channels=3, seed=0) -> torch.Tensor:
    return torch.randn(batch, frames, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> VideoMAEModel:
    return SPEC.build(MODEL)


@pytest.fixture(scope="module")
def pretraining() -> VideoMAEForPreTraining:
    return SPEC.build(PRETRAINING)


@pytest.fixture(autouse=True)
def no_gradients(request):
    """For the functions here; the classes of shared tests train models."""
    with torch.set_grad_enabled(request.cls is not None):
        yield


def same(title, expected, actual, tolerance=REORDERED):
    assert_close(title, {"value": expected}, {"value": actual}, tolerance)


def masked_pixels(mask: torch.Tensor) -> torch.Tensor:
    """(2, 6, 1, 32, 24), true in masked tubelets."""
    tubelets = mask.view(2, *GRID).repeat_interleave(2, 1).repeat_interleave(8, 2).repeat_interleave(8, 3)
    return tubelets[:, :, None]


# ---------------------------------------------------------------------------------------------- drawing of masks


def test_tube_masks_are_those_of_the_original():
    inputs, _ = recorded(COMMITTED / "videomae/pretrain_frames8")
    assert torch.equal(tube_mask((4, 4, 4), 0.9, batch_size=2, seed=207), inputs["bool_masked_pos"])


def test_recorded_draws_of_the_original():
    folder = golden_folders(SPEC).get("tube_masks")
    if folder is None:
        pytest.skip("tube_masks is not among the committed cases; $VIDFORMERS_GOLDENS names a folder with more")
    inputs, outputs = recorded(folder)
    sizes = (((8, 14, 14), 0.9), ((8, 14, 14), 0.75), ((4, 4, 4), 0.9), ((8, 7, 5), 0.5))
    for index, (grid, ratio) in enumerate(sizes):
        masks = tube_mask(grid, ratio, batch_size=64, seed=int(inputs[f"{index}.seed"]))
        assert torch.equal(masks[0].float(), outputs[f"{index}.first_mask"])
        frequency = masks.view(64, grid[0], -1)[:, 0].float().mean(0)
        assert torch.equal(frequency, outputs[f"{index}.position_frequency"])


def test_counts_of_masks():
    tubes, anywhere = tube_mask((8, 14, 14), 0.9, 3, seed=0), random_mask((8, 14, 14), 0.9, 3, seed=0)
    assert tubes.sum(1).tolist() == [8 * 176] * 3
    assert anywhere.sum(1).tolist() == [1411] * 3
    steps = tubes.view(3, 8, 196)
    assert (steps == steps[:, :1]).all()
    assert not (anywhere.view(3, 8, -1)[:, :7] == anywhere.view(3, 8, -1)[:, :1]).all()
    assert len(set(map(bytes, tubes.numpy()))) == len(set(map(bytes, anywhere.numpy()))) == 3


@pytest.mark.parametrize("draw", [tube_mask, random_mask])
def test_seeds_of_masks(draw):
    assert torch.equal(draw(GRID, 0.5, 2, seed=7), draw(GRID, 0.5, 2, seed=7))
    assert not torch.equal(draw(GRID, 0.5, 2, seed=7), draw(GRID, 0.5, 2, seed=8))
    generator = np.random.RandomState(7)
    one_by_one = torch.cat([draw(GRID, 0.5, seed=generator) for _ in range(2)])
    assert torch.equal(one_by_one, draw(GRID, 0.5, 2, seed=7))

    state = np.random.get_state()[1].copy()
    torch.manual_seed(0)
    first, second = draw(GRID, 0.5), draw(GRID, 0.5)
    torch.manual_seed(0)
    assert torch.equal(first, draw(GRID, 0.5))
    assert not torch.equal(first, second)
    assert (np.random.get_state()[1] == state).all(), "numpy's global generator belongs to the user"


@pytest.mark.parametrize(("grid", "ratio"), [(GRID, 0.0), (GRID, 0.05), (GRID, 1.0), (GRID, -0.1), ((3, 1, 1), 0.9)])
def test_masks_leave_something_on_both_sides(grid, ratio):
    with pytest.raises(ValueError, match="at least one of .* leave at least one visible"):
        tube_mask(grid, ratio)


# ------------------------------------------------------------------------------------------------- use of masks


def test_masked_pixels_are_not_read(model, pretraining):
    """Not even as a factor of zero: nothing comes of NaN."""
    clip = video()
    without = clip.masked_fill(masked_pixels(MASK), math.nan)
    same("encoder", model(clip, MASK).last_hidden_state, model(without, MASK).last_hidden_state, EXACT)
    same("logits", pretraining(clip, MASK).logits, pretraining(without, MASK).logits, EXACT)
    assert pretraining(without, MASK).loss.isnan()


def test_visible_pixels_are_no_targets(pretraining):
    clip, noise = video(), video(seed=1)
    changed = torch.where(masked_pixels(MASK), clip, noise)
    seen, grid = pretraining.videomae.embeddings.cut(changed)
    _, masked_ids = split_tokens(MASK, seen, grid)
    same("targets", pretraining.targets(clip, grid, masked_ids), pretraining.targets(seen, grid, masked_ids), EXACT)
    assert (pretraining(clip, MASK).logits - pretraining(changed, MASK).logits).abs().max() > NOTICEABLE


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.float64])
def test_masks_of_numbers(model, pretraining, dtype):
    """0 and 1 in the place of booleans, as the original's generator gives them."""
    clip = video()
    same("encoder", model(clip, MASK).last_hidden_state, model(clip, MASK.to(dtype)).last_hidden_state, EXACT)
    same("loss", pretraining(clip, MASK).loss, pretraining(clip, MASK.to(dtype)).loss, EXACT)


def test_numbers_of_masked_tokens(model, pretraining):
    clip, numbers = video(), MASK.nonzero()[:, 1].view(2, -1)
    expected = pretraining(clip, MASK)
    same("in order", expected.logits, pretraining(clip, numbers).logits)
    turned = pretraining(clip, numbers.flip(1))
    same("as given", expected.logits.flip(1), turned.logits)
    same("loss", expected.loss, turned.loss)
    same("encoder", model(clip, MASK).last_hidden_state, model(clip, numbers.flip(1)).last_hidden_state, EXACT)


def test_no_mask_is_an_empty_mask(model):
    clip = video()
    same("encoder", model(clip).last_hidden_state, model(clip, torch.zeros_like(MASK)).last_hidden_state)


BAD_MASKS = {
    "one video's": (MASK[:1], r"\(2, 36\).*3 × 4 × 3; got \(1, 36\)"),
    "one without a batch": (MASK[0], r"got \(36,\)"),
    "one of more tokens": (torch.zeros(2, 40, dtype=torch.bool), r"got \(2, 40\)"),
    "booleans of fewer tokens": (MASK[:, :30], "entry for each of the 36 tokens, got 30"),
    "numbers beyond 1": (MASK * 2, "0 where a token is visible and 1"),
    "shares": (MASK * 0.5, "0 where a token is visible and 1"),
    "unequal counts": (torch.stack([MASK[0], torch.arange(36) < 9]), r"same number .* got \[24, 9\]"),
    "nothing visible": (torch.ones(2, 36, dtype=torch.bool), "leave at least one visible"),
    "numbers outside": (torch.tensor([[1, 36], [2, 3]]), "between 0 and 35"),
    "negative numbers": (torch.tensor([[1, -1], [2, 3]]), "between 0 and 35"),
    "a number twice": (torch.tensor([[1, 1], [2, 3]]), "occurs twice"),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_bad_masks(model, pretraining, name):
    mask, message = BAD_MASKS[name]
    for each in (model, pretraining):
        with pytest.raises(ValueError, match=message):
            each(video(), mask)


def test_pretraining_needs_something_masked(pretraining):
    with pytest.raises(ValueError, match="tube_mask"):
        pretraining(video(), None)
    with pytest.raises(ValueError, match="masks no token"):
        pretraining(video(), torch.zeros_like(MASK))


@pytest.mark.parametrize("name", ["unequal counts", "numbers beyond 1", "a number twice"])
def test_bad_masks_stop_a_traced_graph(name):
    (mask, _), clip = BAD_MASKS[name], video()

    def split(given):
        return split_tokens(given, clip, Grid(*GRID))

    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="bool_masked_pos"):
        torch.compile(split, fullgraph=True, backend="eager")(mask)


# --------------------------------------------------------------------------------------- targets and their pictures


def plain_targets(clip: torch.Tensor, mask: torch.Tensor, is_normalized: bool) -> torch.Tensor:
    """(2, K, P) tubelet by tubelet, in double precision."""
    channels, rows = clip.shape[2], []
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.0,) * channels, (1.0,) * channels)
    pixels = clip.double() * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    for index, token in mask.nonzero().tolist():
        time, row, column = token // 12, token % 12 // 3, token % 3
        tubelet = pixels[index, 2 * time : 2 * time + 2, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        tubelet = tubelet.permute(0, 2, 3, 1).reshape(-1, channels)
        if is_normalized:
            tubelet = (tubelet - tubelet.mean(0)) / (tubelet.var(0).sqrt() + 1e-6)
        rows.append(tubelet.flatten())
    return torch.stack(rows).view(2, -1, rows[0].numel())


@pytest.mark.parametrize("channels", [3, 2])
@pytest.mark.parametrize("is_normalized", [True, False])
def test_targets_and_reconstruction(is_normalized, channels):
    built = SPEC.build(PRETRAINING, norm_pix_loss=is_normalized, num_channels=channels)
    clip = video(channels=channels)
    expected = plain_targets(clip, MASK, is_normalized)
    output = built(clip, MASK)
    seen, grid = built.videomae.embeddings.cut(clip)
    targets = built.targets(seen, grid, split_tokens(MASK, seen, grid)[1])
    same("targets", expected, targets)
    same("loss", (output.logits - expected).square().mean(), output.loss)

    true = built.reconstruct(clip, torch.zeros_like(MASK) | MASK, targets)
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.0,) * channels, (1.0,) * channels)
    pixels = clip * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    same("true pixels", pixels, true)
    pictured = built.reconstruct(clip, MASK, output.logits)
    hidden = masked_pixels(MASK)
    same("visible pixels", pixels.masked_fill(hidden, 0), pictured.masked_fill(hidden, 0))
    assert ((pixels - pictured) * hidden).abs().max() > NOTICEABLE


def test_even_tubelets_have_targets(pretraining):
    """The original divides by the deviation plus 1e-6."""
    output = pretraining(torch.zeros(2, 6, 3, 32, 24), MASK)
    same("loss", output.logits.square().mean(), output.loss)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_loss_is_float32(dtype):
    output = SPEC.build(PRETRAINING).to(dtype)(video(), MASK)
    assert (output.logits.dtype, output.loss.dtype) == (dtype, torch.float32)


# ------------------------------------------------------------------------------------------------------- positions


def plain_table(count: int, width: int) -> torch.Tensor:
    table = torch.zeros(1, count, width, dtype=torch.float64)
    for position in range(count):
        for channel in range(width):
            angle = position / 10000 ** (2 * (channel // 2) / width)
            table[0, position, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    return table


def tables(built) -> dict[str, torch.Tensor]:
    return dict(built.named_buffers())


def test_tables_stay_right_wherever_a_model_goes(tmp_path):
    built = SPEC.build(PRETRAINING)
    expected = {name: plain_table(36, buffer.shape[-1]) for name, buffer in tables(built).items()}
    assert len(expected) == 2
    assert_close("built", expected, tables(built), REORDERED)
    built.to(torch.bfloat16)
    assert_close("in bfloat16", expected, tables(built), REORDERED)
    assert {table.dtype for table in tables(built).values()} == {torch.float32}
    built.save_pretrained(tmp_path)
    loaded = VideoMAEForPreTraining.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert_close("loaded", expected, tables(loaded), REORDERED)
    assert {table.dtype for table in tables(loaded).values()} == {torch.float32}
    with torch.device("meta"):
        empty = VideoMAEForPreTraining(SPEC.config(PRETRAINING))
    assert_close("off the meta device", expected, tables(empty.to_empty(device="cpu")), REORDERED)


def test_other_sizes_are_refused(model, pretraining):
    for each, more in ((model, ()), (pretraining, (tube_mask((4, 4, 3), 0.7, 2),))):
        with pytest.raises(ValueError, match="4 × 4 × 3 .* trained on 3 × 4 × 3 .*interpolate_pos_encoding=True"):
            each(video(frames=8), *more)
    with pytest.raises(ValueError, match="1 × 1 × 1 tokens"):
        model(video(frames=2, height=8, width=8))


def test_positions_of_the_input(model, pretraining):
    """They are those of a model that was made for the input's size."""
    for each, spec, mask in ((model, MODEL, ()), (pretraining, PRETRAINING, (tube_mask((4, 3, 5), 0.7, 2),))):
        clip = video(frames=8, height=24, width=40)
        made = SPEC.build(spec, image_size=[24, 40], num_frames=8)
        free = SPEC.build(spec, use_input_positions=True)
        made.load_state_dict(each.state_dict())
        free.load_state_dict(each.state_dict())
        output = "last_hidden_state" if each is model else "logits"
        same(output, made(clip, *mask)[output], free(clip, *mask)[output])
        same("trained size", each(video(), MASK)[output], free(video(), MASK)[output])


def test_interpolation(model):
    """Bicubic in space as the original's `run_class_finetuning.py`, linear in time; nothing at the trained size."""
    clip = video()
    plain = model(clip).last_hidden_state
    same("trained size", plain, model(clip, interpolate_pos_encoding=True).last_hidden_state, EXACT)

    table = model.embeddings.position_embeddings.table
    frames = table.view(3, 4, 3, -1).permute(0, 3, 1, 2)
    spread = nn.functional.interpolate(frames, size=(2, 5), mode="bicubic").flatten(2).transpose(1, 2)  # (3, 10, D)
    positions = model.embeddings.position_embeddings
    actual = positions(Grid(6, 2, 5), True, table.device)
    # Six slots in the place of three lie at -1/4, 1/4, 3/4, 5/4, 7/4 and 9/4.
    weights = torch.tensor([[1, 0, 0], [0.75, 0.25, 0], [0.25, 0.75, 0], [0, 0.75, 0.25], [0, 0.25, 0.75], [0, 0, 1]])
    same("table", torch.einsum("st,tnd->snd", weights, spread).flatten(0, 1)[None], actual)


def test_rest_frames_are_cut_and_named(model):
    with pytest.warns(UserWarning, match="frames from 7 to 6"):
        cut = model(video(frames=7)).last_hidden_state
    same("cut", model(video(frames=7)[:, :6]).last_hidden_state, cut, EXACT)
    with pytest.raises(ValueError, match="1 frame"):
        model(video(frames=1))


@pytest.mark.parametrize("shape", [(2, 3, 6, 32, 24), (6, 3, 32, 24), (2, 6, 1, 32, 24), (0, 6, 3, 32, 24)])
def test_inputs_of_other_shapes(model, shape):
    with pytest.raises(ValueError, match="pixel_values"):
        model(torch.zeros(shape))


def test_learned_positions(tmp_path):
    built = SPEC.build(CLASSIFIER, use_learnable_pos_emb=True)
    table = built.videomae.embeddings.position_embeddings.table
    assert 0.01 < table.std() < 0.4
    assert not table.requires_grad, "the original detaches it"
    built.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    same("stored", table, stored["videomae.embeddings.position_embeddings.table"], EXACT)
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path, attn_implementation="eager")
    same("logits", built(video()).logits, loaded(video()).logits, EXACT)

    with torch.enable_grad():
        table.requires_grad_()
        built(video()).logits.sum().backward()
        assert table.grad.abs().max() > 0
    assert built(video(frames=4), interpolate_pos_encoding=True).logits.isfinite().all()
    with pytest.raises(StrictDataclassError, match="use_learnable_pos_emb"):
        VideoMAEConfig(use_learnable_pos_emb=True, use_input_positions=True)


# ------------------------------------------------------------------------------------ where the two sources differ


def test_epsilons():
    """The original's by default, a directory's own where it has any."""
    assert (VideoMAEConfig().layer_norm_eps, VideoMAEConfig().head_layer_norm_eps) == (1e-6, 1e-6)
    for spec in (PRETRAINING, CLASSIFIER):
        built = SPEC.build(spec, layer_norm_eps=1e-3, head_layer_norm_eps=1e-4)
        of_heads = {"fc_norm", "decoder.norm"}
        for name, module in built.named_modules():
            if isinstance(module, nn.LayerNorm):
                assert module.eps == (1e-4 if name in of_heads else 1e-3), name
    theirs = transformers.VideoMAEConfig().to_dict()
    assert VideoMAEConfig.from_dict(theirs).layer_norm_eps == 1e-12


def test_pretraining_always_normalizes(tmp_path):
    """transformers leaves the norm out with `use_mean_pooling`; its directories can be read as they were trained."""
    fields = {**TINY, "use_mean_pooling": True, "initializer_range": 0.3}
    theirs = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**fields)).eval()
    theirs.save_pretrained(tmp_path)
    _, info = VideoMAEForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert set(info["missing_keys"]) == {"videomae.layernorm.weight", "videomae.layernorm.bias"}

    settings = {"use_pretraining_norm": False, "head_layer_norm_eps": 1e-5, "output_loading_info": True}
    ours, info = VideoMAEForPreTraining.from_pretrained(tmp_path, **settings)
    assert not info["missing_keys"]
    same("logits", theirs(video(), MASK).logits, ours(video(), MASK).logits)

    built = SPEC.build(PRETRAINING, use_mean_pooling=True)
    encoded = built.videomae(video(), MASK, output_hidden_states=True)
    same("normalized", built.videomae.layernorm(encoded.hidden_states[-1]), encoded.last_hidden_state, EXACT)
    assert VideoMAEModel(SPEC.config(MODEL, use_mean_pooling=True)).layernorm is None


def test_first_token_classifies_without_mean_pooling():
    built = SPEC.build(CLASSIFIER, use_mean_pooling=False)
    tokens = built.videomae(video()).last_hidden_state
    same("logits", built.classifier(tokens[:, 0]), built(video()).logits, EXACT)
    assert built.fc_norm is None


@pytest.mark.parametrize("spec", [MODEL, PRETRAINING], ids=["VideoMAEModel", "VideoMAEForPreTraining"])
def test_both_spellings_of_biases(spec, tmp_path):
    built = SPEC.build(spec)
    built.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    spelled = {
        name.replace("q_bias", "query.bias").replace("v_bias", "value.bias"): value for name, value in stored.items()
    }
    assert set(spelled) != set(stored)
    save_file(spelled, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = spec.model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert_close("loaded", stored, loaded.state_dict(), EXACT)
    loaded.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) == set(stored)
    other = SPEC.build(spec, seed=1)
    other.load_state_dict(spelled)
    assert_close("load_state_dict", stored, other.state_dict(), EXACT)


def test_a_mapping_of_names_of_the_user(tmp_path):
    built = SPEC.build(MODEL)
    built.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    renamed = {name.replace("encoder.layer.", "blocks."): value for name, value in stored.items()}
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, info = VideoMAEModel.from_pretrained(
        tmp_path, output_loading_info=True, key_mapping={r"^blocks\.": "encoder.layer."}
    )
    assert not any(info.values()), info
    assert_close("loaded", stored, loaded.state_dict(), EXACT)


# ------------------------------------------------------------------------------------------------- forms of models


def test_layer_scale(tmp_path):
    built = SPEC.build(PRETRAINING, layer_scale_init_value=0.25)
    layer = built.decoder.decoder_layers[1]
    tokens = torch.randn(1, 5, TINY["decoder_hidden_size"])
    before, _ = layer(tokens)
    layer.lambda_1.zero_()
    layer.lambda_2.zero_()
    same("factors of zero", tokens, layer(tokens)[0], EXACT)
    assert (before - tokens).abs().max() > NOTICEABLE
    fresh = VideoMAEForPreTraining(SPEC.config(PRETRAINING, layer_scale_init_value=0.25))
    assert (fresh.videomae.encoder.layer[0].lambda_2 == 0.25).all()


@torch.no_grad()
def test_dropout_is_not_passed_by():
    block = SPEC.build(MODEL, hidden_dropout_prob=0.5).encoder.layer[0]
    tokens = torch.randn(3, 64, block.layernorm_before.normalized_shape[0])
    assert torch.equal(block.eval()._transform(tokens), block._transform(tokens))
    assert not torch.equal(block.train()._transform(tokens), block._transform(tokens))


def test_drop_path_drops_in_encoder_and_decoder():
    built = SPEC.build(PRETRAINING, drop_path_rate=0.5)
    rates = [layer.drop_path.rate for layer in (*built.videomae.encoder.layer, *built.decoder.decoder_layers)]
    assert rates == [0.0, 0.25, 0.5, 0.0, 0.5]
    built.train()
    assert not torch.equal(built(video(), MASK).logits, built(video(), MASK).logits)


def test_patches_need_not_be_square():
    built = SPEC.build(PRETRAINING, patch_size=[8, 4])
    assert built.config.token_grid == (3, 4, 6)
    assert built.videomae.embeddings.patch_embeddings.projection.weight.shape[2:] == (2, 8, 4)
    mask = random_mask((3, 4, 6), 0.5, 2, seed=0)
    output = built(video(), mask)
    assert output.logits.shape == (2, 36, 2 * 8 * 4 * 3)
    assert torch.equal(output.logits, built(video(), mask.long()).logits)
    pixels = built.reconstruct(video(), mask, output.logits)
    assert pixels.shape == video().shape


def test_without_labels_the_features_come_out():
    built = SPEC.build(CLASSIFIER, num_labels=0)
    same("features", built.pool(built.videomae(video()).last_hidden_state), built(video()).logits, EXACT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": [32, 24, 3]}, "height and width"),
        ({"image_size": 4}, "No token fits"),
        ({"num_frames": 1}, "No token fits"),
        ({"patch_size": 0}, "`patch_size` must be at least 1"),
        ({"tubelet_size": 0}, "`tubelet_size` must be at least 1"),
        ({"hidden_size": 50}, "multiple of `num_attention_heads`"),
        ({"decoder_hidden_size": 32}, "multiple of `decoder_num_attention_heads`"),
    ],
)
def test_bad_configurations(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        VideoMAEConfig(**{**TINY, **fields})


def test_qkv_bias_is_another_name():
    assert VideoMAEConfig(qkv_bias=False).qv_bias is False
    built = SPEC.build(MODEL, qv_bias=False)
    assert not [name for name in built.state_dict() if "q_bias" in name or "v_bias" in name]


# ---------------------------------------------------------------------------------------------------- initialization


def bound(*fans: int, gain: float = 1.0) -> float:
    return gain * math.sqrt(6 / sum(fans))


def test_pretraining_starts_as_the_original():
    """Xavier's limits with queries, keys and values as one layer; PyTorch's for what the original leaves alone."""
    torch.manual_seed(0)
    built = VideoMAEForPreTraining(SPEC.config(PRETRAINING, hidden_size=96, intermediate_size=192))
    weights = dict(built.named_parameters())
    limits = {
        "videomae.encoder.layer.0.attention.attention.key.weight": bound(96, 3 * 96),
        "videomae.encoder.layer.2.attention.output.dense.weight": bound(96, 96),
        "videomae.encoder.layer.1.intermediate.dense.weight": bound(96, 192),
        "decoder.decoder_layers.1.attention.attention.value.weight": bound(30, 3 * 30),
        "decoder.head.weight": bound(30, 384),
        "encoder_to_decoder.weight": 1 / math.sqrt(96),
        "videomae.embeddings.patch_embeddings.projection.weight": 1 / math.sqrt(384),
        "mask_token": 0.2,
    }
    for name, limit in limits.items():
        assert 0.8 * limit < weights[name].abs().max() <= limit * (1 + 1e-6), name
    patch_bias = weights["videomae.embeddings.patch_embeddings.projection.bias"]
    assert 0 < patch_bias.abs().max() <= 1 / math.sqrt(384)


def test_classifiers_start_as_the_original():
    torch.manual_seed(0)
    built = VideoMAEForVideoClassification(SPEC.config(CLASSIFIER, initializer_range=0.02))
    assert 0.018 < built.videomae.encoder.layer[0].attention.attention.query.weight.std() < 0.022
    assert 1.5e-5 < built.classifier.weight.std() < 2.5e-5
    assert not built.classifier.bias.any()


# ------------------------------------------------------------------------------------------------ transformers' page


def test_snippet_of_pretraining(tmp_path, monkeypatch):
    """As transformers' reference of `VideoMAEForPreTraining` has it."""
    from transformers import AutoImageProcessor, AutoModelForPreTraining

    import vidformers  # noqa: F401

    config = VideoMAEConfig(**{**TINY, "image_size": 224, "patch_size": 16, "num_frames": 16})
    VideoMAEForPreTraining(config).save_pretrained(tmp_path / "MCG-NJU/videomae-base")
    transformers.VideoMAEImageProcessorPil().save_pretrained(tmp_path / "MCG-NJU/videomae-base")
    monkeypatch.chdir(tmp_path)

    num_frames = 16
    clip = list(np.random.RandomState(0).randint(0, 256, (num_frames, 3, 224, 224)))
    image_processor = AutoImageProcessor.from_pretrained("MCG-NJU/videomae-base")
    model = AutoModelForPreTraining.from_pretrained("MCG-NJU/videomae-base")
    assert type(model) is VideoMAEForPreTraining
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixel_values = image_processor(clip, return_tensors="pt").pixel_values
    num_patches_per_frame = (model.config.image_size // model.config.patch_size) ** 2
    seq_length = (num_frames // model.config.tubelet_size) * num_patches_per_frame
    bool_masked_pos = torch.randint(0, 2, (1, seq_length)).bool()
    outputs = model(pixel_values, bool_masked_pos=bool_masked_pos)
    assert outputs.loss.isfinite()
    assert outputs.logits.shape == (1, bool_masked_pos.sum(), 16 * 16 * 2 * 3)


def test_the_loss_can_be_left_out():
    model = next(model for model in SPEC.models if model.name == "VideoMAEForPreTraining")
    built, inputs = SPEC.build(model), SPEC.inputs(model)
    with torch.no_grad():
        output = built(**inputs, return_loss=False)
    assert output.loss is None and torch.equal(output.logits, built(**inputs).logits)
