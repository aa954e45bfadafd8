"""What V-JEPA 2-AC alone has: conditions, causal steps, rollouts, its files."""

from types import SimpleNamespace

import pytest
import torch

from tests.harness.compare import assert_close
from tests.harness.tolerances import EXACT, NOTICEABLE, REORDERED
from tests.original_files import V2_CONFIG, ac_tree, v2_tree
from tests.vjepa2.spec import ACTION_CONDITIONED, SPEC
from vidformers import VJEPA2ACModel, VJEPA2Model, load_original
from vidformers.conversion import ConversionError, convert_checkpoint, reverse_directory
from vidformers.layers.attention import Inputs, attention
from vidformers.layers.cpu import attention_in_blocks
from vidformers.layers.patchify import Grid
from vidformers.models.vjepa2.modeling_vjepa2_ac import causal_mask


FRAMES = 3


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> VJEPA2ACModel:
    return SPEC.build(ACTION_CONDITIONED)


def inputs(**fields) -> dict[str, torch.Tensor]:
    return SPEC.inputs(ACTION_CONDITIONED, size=SPEC.size._replace(frames=FRAMES), **fields)


def predict(model, given) -> torch.Tensor:
    """(B, T, h·w, D)."""
    return model(**given).predictor_output.last_hidden_state.unflatten(1, (FRAMES, -1))


def same(title, expected, actual, tolerance=REORDERED):
    assert_close(title, {"value": expected}, {"value": actual}, tolerance)


# ------------------------------------------------------------------------------------------------------- the model


def test_each_frame_is_encoded_alone(model):
    video = inputs()["pixel_values_videos"]
    features = model.encode_frames(video)
    assert features.shape == (2, FRAMES, 4, 4, 80)
    for frame in range(FRAMES):
        still = video[:, frame : frame + 1].expand(-1, 2, -1, -1, -1)
        alone = model.encoder(still).last_hidden_state
        alone = torch.nn.functional.layer_norm(alone, (80,)).unflatten(1, (4, 4))
        same(f"frame {frame}", alone, features[:, frame])


def test_features_stand_for_frames(model):
    given = inputs()
    output = model(**given)
    features = model.encode_frames(given.pop("pixel_values_videos"))
    again = model(features=features, **given)
    same("features", output.last_hidden_state, again.last_hidden_state, EXACT)
    same("predictions", output.predictor_output[0], again.predictor_output[0], EXACT)
    assert again.hidden_states is None


@pytest.mark.parametrize("name", ["pixel_values_videos", "actions", "states", "extrinsics"])
@pytest.mark.parametrize("step", range(FRAMES))
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_step_changes_itself_and_later_ones(name, step, implementation):
    built, given = SPEC.build(ACTION_CONDITIONED, attention=implementation), inputs()
    before = predict(built, given)
    given[name] = given[name].clone()
    given[name][:, step] += 1
    moved = (predict(built, given) - before).abs().amax((0, 2, 3))
    assert (moved[:step] == 0).all()
    assert (moved[step:] > NOTICEABLE).all()


def test_fewer_steps_are_the_first_steps(model):
    given = inputs()
    first = {name: value[:, :2] for name, value in given.items()}
    expected = predict(model, given)[:, :2].flatten(1, 2)
    same("two of three steps", expected, model(**first).predictor_output.last_hidden_state)


def test_conditions_stand_at_row_and_column_zero(model):
    """Swapping rows of the picture's tokens can't move how conditions are rotated: only time turns them."""
    rotary = model.predictor._rotary(Grid(2, 4, 4), 3, torch.zeros(1))
    per_step = rotary.own[0, :, 0].unflatten(0, (2, 19))  # (steps, K + h·w, head_dim)
    pairs = 20 // 3 // 2 * 2
    assert (per_step[:, :3, pairs:] == 1).all()
    same("time", per_step[:, 3:4, :pairs].expand(-1, 3, -1), per_step[:, :3, :pairs], EXACT)


def test_rollout_feeds_predictions_back(model):
    given = inputs()
    features = model.encode_frames(given.pop("pixel_values_videos"))[:, :1]
    followed = model.rollout(features, **given)
    assert followed.shape == (2, FRAMES + 1, 4, 4, 80)
    same("the known frame", features, followed[:, :1], EXACT)
    for known in range(1, FRAMES + 1):
        conditions = {name: value[:, :known] for name, value in given.items()}
        predicted = model(features=followed[:, :known], **conditions).predictor_output.last_hidden_state[:, -16:]
        predicted = torch.nn.functional.layer_norm(predicted, (80,)).unflatten(1, (4, 4))
        same(f"frame {known}", predicted, followed[:, known], EXACT)


def test_rollout_from_several_frames(model):
    given = inputs()
    features = model.encode_frames(given.pop("pixel_values_videos"))
    followed = model.rollout(features, **given)
    assert followed.shape[1] == FRAMES + 1
    same("known frames", features, followed[:, :-1], EXACT)


def test_deeper_blocks_start_smaller():
    torch.manual_seed(0)
    built = VJEPA2ACModel(SPEC.config(ACTION_CONDITIONED, initializer_range=0.02))
    for depth, layer in enumerate(built.predictor.layer, start=1):
        for projection in (layer.attention.proj, layer.mlp.fc2):
            assert projection.weight.std().item() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.05)


def test_without_extrinsics():
    built = SPEC.build(ACTION_CONDITIONED, use_extrinsics=False)
    given = inputs(use_extrinsics=False)
    assert "extrinsics" not in given
    assert predict(built, given).shape == (2, FRAMES, 16, 80)


ERRORS = {
    "no frames": (lambda given: given.pop("pixel_values_videos"), "one of `pixel_values_videos` and `features`"),
    "frames twice": (lambda given: given.update(features=torch.zeros(2, 3, 4, 4, 80)), "one of"),
    "no actions": (lambda given: given.pop("actions"), "Give `actions`, `states`"),
    "no extrinsics": (lambda given: given.pop("extrinsics"), "`config.use_extrinsics` is True.*are missing"),
    "another width": (lambda given: given.update(states=torch.zeros(2, 3, 6)), r"`states` of shape \(2, 3, 7\)"),
    "other frames": (lambda given: given.update(actions=torch.zeros(2, 2, 7)), r"`actions` of shape.*got \(2, 2, 7\)"),
    "an image": (lambda given: given.update(pixel_values_videos=torch.zeros(2, 3, 32, 32)), "Expected `pixel_values"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_came(model, name):
    change, message = ERRORS[name]
    given = inputs()
    change(given)
    with pytest.raises(ValueError, match=message):
        model(**given)


def test_errors_of_rollouts(model):
    features, conditions = torch.zeros(2, 2, 4, 4, 80), torch.zeros(2, 1, 7)
    with pytest.raises(ValueError, match="got 2 frames and 1 actions"):
        model.rollout(features, conditions, conditions)
    with pytest.raises(ValueError, match=r"rows, columns, 80\), as `encode_frames`.*\(2, 32, 80\)"):
        model.rollout(features.flatten(2, 3).flatten(1, 2), torch.zeros(2, 32, 7), torch.zeros(2, 32, 7))
    without = SPEC.build(ACTION_CONDITIONED, use_extrinsics=False)
    with pytest.raises(ValueError, match="`config.use_extrinsics` is False.*were given"):
        without(**inputs())


# ------------------------------------------------------------------------------------------------------------ masks


def test_mask_of_steps():
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(causal_mask(2, 2, torch.device("cpu"))[0, 0], expected)


class Layer(torch.nn.Module):
    """What attention reads of a layer."""

    is_causal = False

    def __init__(self, implementation: str):
        super().__init__()
        self.config = SimpleNamespace(_attn_implementation=implementation)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
def test_masked_attention(implementation):
    query, key, value = torch.randn(3, 2, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    mask = causal_mask(3, 4, query.device)
    attended, _ = attention(Layer(implementation).eval(), query, key, value, scaling=0.5, mask=mask)
    probabilities = (query @ key.mT * 0.5).masked_fill(~mask, -1e9).softmax(-1)
    same("masked", (probabilities @ value).transpose(1, 2).flatten(2), attended)
    blocks = attention_in_blocks(Inputs(query, key, value, mask, scaling=0.5, softcap=None, dropout=0.0))
    same("in blocks", attended, blocks)


# ------------------------------------------------------------------------------------------------------- conversion


def test_files_convert_and_come_back(tmp_path):
    tree = ac_tree()
    torch.save(tree, tmp_path / "ac.pt")
    reports = convert_checkpoint(tmp_path / "ac.pt", tmp_path / "out", **V2_CONFIG)
    assert all(report.passed for report in reports)
    model = VJEPA2ACModel.from_pretrained(tmp_path / "out")
    weight = tree["encoder"]["module.patch_embed.proj.weight"]
    assert torch.equal(model.encoder.embeddings.patch_embeddings.proj.weight, weight)
    reverse_directory(tmp_path / "out", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    assert set(back) == {"encoder", "predictor"}
    for name, part in back.items():
        assert set(part) == set(tree[name])
        assert all(torch.equal(tensor, tree[name][key]) for key, tensor in part.items())


def test_each_file_becomes_its_own_class(tmp_path):
    torch.save(ac_tree(), tmp_path / "ac.pt")
    torch.save(v2_tree(), tmp_path / "vit.pt")
    assert type(load_original(tmp_path / "ac.pt", **V2_CONFIG)) is VJEPA2ACModel
    assert type(load_original(tmp_path / "vit.pt", **V2_CONFIG)) is VJEPA2Model
    assert type(VJEPA2ACModel.from_original(tmp_path / "ac.pt", **V2_CONFIG)) is VJEPA2ACModel
    with pytest.raises(ConversionError, match="action_encoder"):
        VJEPA2ACModel.from_original(tmp_path / "vit.pt", **V2_CONFIG)


def test_a_damaged_file_is_told_by_its_own_names(tmp_path):
    tree = ac_tree()
    del tree["predictor"]["module.state_encoder.bias"]
    torch.save(tree, tmp_path / "ac.pt")
    with pytest.raises(ConversionError, match=r"(?s)1 tensor\(s\) don't fit.*state_encoder.bias: missing"):
        load_original(tmp_path / "ac.pt", **V2_CONFIG)
