"""What V-JEPA 2.1 adds: levels, images of their own, other rotations, predictions of the context."""

import unittest

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from tests.harness.citizen import CitizenMixin
from tests.harness.compare import assert_close
from tests.harness.config import ConfigMixin
from tests.harness.modeling import DeviceMixin, GraphMixin, OutputMixin, StorageMixin
from tests.harness.positions import PositionsMixin
from tests.harness.tolerances import EXACT, NOTICEABLE, REORDERED
from tests.original_files import v2_1_tree, v2_tree
from tests.vjepa2.spec import DISTILLED, FOUR_LEVELS, MODEL, SPEC, SPEC_2_1
from vidformers import VJEPA2ForActionAnticipation, VJEPA2ForVideoClassification, VJEPA2Model, load_original
from vidformers.conversion import ConversionError, convert_checkpoint, reverse_directory
from vidformers.layers.patchify import Grid
from vidformers.models.vjepa2.modeling_vjepa2 import rotary_for
from vidformers.models.vjepa2.record import FAMILY as VJEPA2


class VJEPA21ModelTest(StorageMixin, OutputMixin, DeviceMixin, GraphMixin, unittest.TestCase):
    """Without the training tests: no single call trains what is for images and what is for videos."""

    spec = SPEC_2_1
    test_round_trip = ConfigMixin.test_round_trip
    test_off_size = PositionsMixin.test_off_size


class VJEPA21CitizenTest(CitizenMixin, unittest.TestCase):
    """What tools do to modules works."""

    spec = SPEC_2_1


CONTEXT = torch.tensor([[0, 9, 3, 30, 17], [31, 2, 8, 12, 5]])
TARGET = torch.tensor([[1, 29, 4], [20, 19, 0]])


def build(model=FOUR_LEVELS, **fields) -> VJEPA2Model:
    """A tiny model whose two modalities differ by more than the initialization makes them."""
    built = SPEC.build(model, **fields)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name.endswith("_mod_embed"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return built


def video(frames=4, height=32, width=32) -> torch.Tensor:
    return torch.randn(2, frames, 3, height, width, generator=torch.Generator().manual_seed(0))


def same(title, expected, actual, tolerance=REORDERED):
    assert_close(title, {"value": expected}, {"value": actual}, tolerance)


def test_videos_and_images_train_every_parameter():
    built = build().train()
    loss = 0.0
    for clip in (video(), video(frames=1)):
        output = built(clip, target_mask=TARGET % 16, mask_index=0)
        loss = loss + output.hierarchical_hidden_state.square().mean() + output.predictor_output[0].square().mean()
        loss = loss + output.predictor_output.context_predictions.square().mean()
    loss.backward()
    without = [name for name, parameter in built.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in built.parameters())


# ----------------------------------------------------------------------------------------------------------- levels


@torch.no_grad()
def test_levels_stand_side_by_side():
    built = build()
    output = built(video(), skip_predictor=True, out_layers=[2, 5, 8, 11], output_hidden_states=True)
    assert output.hierarchical_hidden_state.shape == (2, 32, 4 * 80)
    same("levels", torch.cat(output.out_layer_hidden_states, -1), output.hierarchical_hidden_state, EXACT)
    same("the last one", output.out_layer_hidden_states[-1], output.last_hidden_state, EXACT)
    for index, layer in enumerate((2, 5, 8, 11)):
        normed = built.encoder.norms_block[index](output.hidden_states[layer + 1])
        same(f"level {index}", normed, output.out_layer_hidden_states[index])
    same("features", output.hierarchical_hidden_state, built.get_vision_features(video()), EXACT)


@torch.no_grad()
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_the_predictor_reads_the_last_levels(outputs):
    built = build(num_distillation_outputs=outputs)
    output = built(video(), CONTEXT, TARGET, return_target_hidden_state=True)
    levels = output.hierarchical_hidden_state
    same("what it reads", levels[..., -outputs * 80 :], output.masked_hidden_state, EXACT)
    assert output.predictor_output.last_hidden_state.shape == (2, 3, outputs * 80)
    assert output.predictor_output.context_predictions.shape == (2, 5, outputs * 80)
    whole = built.get_vision_features(video())[..., -outputs * 80 :]
    expected = torch.stack([whole[row, ids] for row, ids in enumerate(TARGET)])
    same("what it is to predict", expected, output.predictor_output.target_hidden_state)


@torch.no_grad()
def test_predictions_have_the_teachers_width():
    predicted = build(DISTILLED)(video(), CONTEXT, TARGET).predictor_output
    assert predicted.last_hidden_state.shape == (2, 3, 100)
    assert predicted.context_predictions.shape == (2, 5, 100)


@torch.no_grad()
def test_context_predictions_keep_the_order_of_the_mask():
    built = build()
    predicted = built(video(), CONTEXT, TARGET).predictor_output.context_predictions
    turned = built(video(), CONTEXT.flip(1), TARGET).predictor_output.context_predictions
    same("context", predicted.flip(1), turned)
    assert build(use_context_projection=False)(video()).predictor_output.context_predictions is None


# ---------------------------------------------------------------------------------------------------- modalities


@torch.no_grad()
def test_images_have_their_own_patches_and_modality():
    built = build()
    image = video(frames=1)
    output = built(image)
    assert output.last_hidden_state.shape == (2, 16, 80)
    same("4-D", output.last_hidden_state, built(image[:, 0]).last_hidden_state, EXACT)
    still = built(image.expand(-1, 2, -1, -1, -1))
    assert (output.last_hidden_state - still.last_hidden_state).abs().max() > NOTICEABLE
    changed = {"image": output, "video": still}
    for owner in (built.encoder.embeddings, built.predictor.embeddings):
        for name, modality in (("img_mod_embed", "image"), ("video_mod_embed", "video")):
            getattr(owner, name).add_(torch.randn(getattr(owner, name).shape))
            now = {"image": built(image), "video": built(image.expand(-1, 2, -1, -1, -1))}
            for kind, before in changed.items():
                moved = (now[kind].predictor_output[0] - before.predictor_output[0]).abs().max()
                assert (moved > NOTICEABLE) == (kind == modality), (name, kind)
            changed = now


@torch.no_grad()
def test_a_frame_fills_a_tubelet_without_a_patch_embedding_for_images():
    built = build(use_image_patch_embedder=False, use_modality_embeddings=False)
    image = video(frames=1)
    still = built(image.expand(-1, 2, -1, -1, -1)).last_hidden_state
    same("a still clip", still, built(image).last_hidden_state, EXACT)


# ------------------------------------------------------------------------------------------------------ positions


def positions_of(config, grid: Grid, interpolate: bool) -> tuple[torch.Tensor, ...]:
    """Time, row and column of every token, from the slower of an axis' two pairs, which turns by hundredths."""
    table = rotary_for(config, torch.arange(grid.num_tokens)[None], grid, 12, torch.float32, interpolate)
    angles = table.neighbor[0, :, 0].asin()
    return angles[:, 3] * 100, angles[:, 7] * 100, angles[:, 11] * 100


@pytest.mark.parametrize(("patch_size", "last"), [(16, 15), (14, 17)])
def test_rows_and_columns_are_spread_and_time_is_not(patch_size, last):
    config = SPEC.config(FOUR_LEVELS, patch_size=patch_size)
    grid = Grid(2, 1, 4)
    time, row, column = positions_of(config, grid, interpolate=True)
    same("time", torch.arange(2.0).repeat_interleave(4), time)
    same("row", torch.zeros(8), row)
    same("column", torch.arange(4.0).repeat(2) * last / 3, column)
    same("left alone", torch.arange(4.0).repeat(2), positions_of(config, grid, interpolate=False)[2])


@torch.no_grad()
@pytest.mark.parametrize("field", ["use_rope_interleave", "interpolate_rope", "pred_interpolate_rope"])
def test_switches_of_the_rotation_matter(field):
    built = build()
    other = build(**{field: not getattr(built.config, field)})
    output, changed = built(video()), other(video())
    moved = (output.last_hidden_state - changed.last_hidden_state).abs().max() > NOTICEABLE
    assert moved == (field != "pred_interpolate_rope")
    assert (output.predictor_output[0] - changed.predictor_output[0]).abs().max() > NOTICEABLE


# ---------------------------------------------------------------------------------------- configuration, errors


def test_defaults_are_v_jepa_2():
    built = SPEC.build(MODEL)
    names = [name for name, _ in built.named_parameters()]
    assert not [
        name for name in names if any(part in name for part in ("mod_embed", "_img", "norms_block", "context"))
    ]
    output = built(video())
    assert output.hierarchical_hidden_state is None
    assert output.predictor_output.context_predictions is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_distillation_outputs": 5}, r"`num_distillation_outputs` \(5\).*at most"),
        ({"num_distillation_outputs": 2, "hierarchical_layers": None}, "and 1 without any"),
        ({"num_distillation_outputs": 0}, "at least 1"),
        ({"hierarchical_layers": []}, "at least one block"),
        ({"hierarchical_layers": [5, 2]}, "in order and each once"),
        ({"hierarchical_layers": [2, 12]}, "from 0 to 11, got 12"),
        ({"out_layers": [2, 3]}, "must be among `hierarchical_layers`"),
    ],
)
def test_configurations_that_mean_nothing(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        SPEC.config(FOUR_LEVELS, **{"num_distillation_outputs": 1, **fields})


def test_calls_that_mean_nothing():
    built = build()
    with pytest.raises(ValueError, match="among `config.hierarchical_layers`.*no other block has a norm"):
        built(video(), out_layers=[2, 3])
    with pytest.raises(ValueError, match="read `predictor_output.context_predictions`"):
        built(video(), return_all_tokens=True)
    with pytest.raises(ValueError, match=r"must be `hidden_size` \(80\)"):
        VJEPA2ForActionAnticipation(SPEC.config(FOUR_LEVELS))(video(), torch.ones(2))


@torch.no_grad()
def test_a_probe_reads_levels():
    config = SPEC.config(FOUR_LEVELS, out_layers=[2, 11])
    assert VJEPA2ForVideoClassification(config).eval()(video()).logits.shape == (2, 5)


# ------------------------------------------------------------------------------------------------------ conversion

CONFIG = {"num_attention_heads": 2, "pred_num_attention_heads": 2, "crop_size": 64, "frames_per_clip": 4}
FILES = {
    "distilled": ({"key": "ema_encoder", "teacher": 40}, {"checkpoint_key": "ema_encoder"}),
    "four levels": ({"outputs": 4}, {}),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_convert_and_come_back(tmp_path, kind):
    tree, options = v2_1_tree(**FILES[kind][0]), FILES[kind][1]
    torch.save(tree, tmp_path / "vit.pt")
    reports = convert_checkpoint(tmp_path / "vit.pt", tmp_path / "out", **CONFIG, **options)
    assert all(report.passed for report in reports)
    config = VJEPA2Model.from_pretrained(tmp_path / "out").config
    assert config.hierarchical_layers == [2, 5, 8, 11]
    assert (config.num_distillation_outputs, config.teacher_embed_dim) == ((1, 40) if options else (4, None))
    assert config.use_rope_interleave and config.interpolate_rope and not config.pred_interpolate_rope
    assert config.use_modality_embeddings and config.use_image_patch_embedder and config.use_context_projection
    reverse_directory(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert set(back) == set(tree)
    for name, part in tree.items():
        assert set(back[name]) == set(part)
        assert all(torch.equal(tensor, back[name][key]) for key, tensor in part.items())


def test_what_shapes_cannot_tell_can_be_given(tmp_path):
    torch.save(v2_1_tree(), tmp_path / "vit.pt")
    given = {"interpolate_rope": False, "hierarchical_layers": [1, 3, 5, 11], "pred_interpolate_rope": True}
    config = load_original(tmp_path / "vit.pt", **CONFIG, **given).config
    assert {name: getattr(config, name) for name in given} == given
    with pytest.raises(ConversionError, match="hierarchical_layers=.* was given, but the file"):
        load_original(tmp_path / "vit.pt", **CONFIG, hierarchical_layers=[1, 11])
    with pytest.raises(ConversionError, match="teacher_embed_dim=33 was given"):
        load_original(tmp_path / "vit.pt", **CONFIG, teacher_embed_dim=33)


def test_a_file_of_v_jepa_2_stays_one(tmp_path):
    torch.save(v2_tree(), tmp_path / "vit.pt")
    config = load_original(tmp_path / "vit.pt", **CONFIG).config
    assert config.hierarchical_layers is None and config.teacher_embed_dim is None
    assert not (config.use_rope_interleave or config.interpolate_rope or config.use_modality_embeddings)


def test_original_code_of_2_1_is_not_run(tmp_path):
    torch.save(v2_1_tree(), tmp_path / "vit.pt")
    with pytest.raises(ConversionError, match="not V-JEPA 2.1"):
        convert_checkpoint(tmp_path / "vit.pt", tmp_path / "out", original_repo=tmp_path, **CONFIG)


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("vitb", 86), ("vitl", 304), ("vitg", 1012), ("vitG", 1844)],
)
def test_encoders_of_the_published_models(preset, millions):
    """Parameters of the usual ViTs of these names."""
    with torch.device("meta"):
        built = VJEPA2Model(SPEC.config_class(**VJEPA2.presets[f"vjepa2.1-{preset}-fpc64-384"].config))
    blocks = sum(parameter.numel() for parameter in built.encoder.layer.parameters())
    assert blocks == pytest.approx(millions * 1e6, rel=0.03)
