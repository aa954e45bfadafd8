"""Poses and plans of V-JEPA 2-AC: the original's numbers, and what holds for all."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.goldens_of_training import case, cases, part
from vidformers import VJEPA2ACForPreTraining, VJEPA2ACModel, VJEPA2Config
from vidformers.models.vjepa2 import (
    PLAN_SETTINGS,
    compute_new_pose,
    energy_landscape,
    plan,
    poses_in_camera_frame,
    poses_to_actions,
    receding_horizon,
)
from vidformers.models.vjepa2.poses_vjepa2 import _matrices
from vidformers.training import warmup_stable_decay_schedule


TINY = {
    "patch_size": 8,
    "crop_size": 32,
    "frames_per_clip": 4,
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "pred_hidden_size": 24,
    "pred_num_hidden_layers": 2,
    "pred_num_attention_heads": 2,
    "initializer_range": 0.2,
}


def loaded(given: Any, tmp_path: Path, model_class: type = VJEPA2ACModel) -> VJEPA2ACModel:
    """The model of a case, out of a file as the original writes it."""
    encoder, predictor = (part(given.weights, prefix) for prefix in ("encoder.", "predictor."))
    sections = {"encoder": encoder, "predictor": predictor, "target_encoder": encoder}
    file = {name: {f"module.{key}": each for key, each in part.items()} for name, part in sections.items()}
    torch.save(file, tmp_path / "ac.pt")
    sizes = given.hyperparameters
    return model_class.from_original(
        tmp_path / "ac.pt",
        num_attention_heads=sizes["num_heads"],
        pred_num_attention_heads=sizes["pred_num_heads"],
        crop_size=sizes["img_size"],
        frames_per_clip=sizes["num_frames"],
        **sizes.get("loss", {}) and {name: sizes["loss"][name] for name in ("loss_exp", "auto_steps")},
    )


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance, check_dtype=False)


# ----------------------------------------------------------------------------------------------------------- poses


def close_poses(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Compare poses, orientations as matrices: near a vertical middle angle the other two aren't unique."""
    close(actual[..., [0, 1, 2, 6]], expected[..., [0, 1, 2, 6]], tolerance)
    close(_matrices(actual[..., 3:6]), _matrices(expected[..., 3:6]), tolerance)


@pytest.mark.parametrize("name", cases("b1_poses"))
def test_poses_of_the_original(name):
    given = case(name)
    pose, action, end, extrinsics = (given.inputs[key] for key in ("pose", "action", "end", "extrinsics"))
    close_poses(compute_new_pose(pose, action), given.outputs["new_pose_f64"][:, 0], 1e-7)
    single = compute_new_pose(pose.float(), action.float())
    assert single.dtype == torch.float32
    close_poses(single, given.outputs["new_pose_f32"][:, 0], 1e-6)
    pairs = poses_to_actions(torch.stack([pose, end], dim=1))
    close_poses(pairs[:, 0], given.outputs["poses_to_diff"], 1e-7)
    close_poses(poses_to_actions(pose), given.outputs["trajectory_actions"], 1e-7)
    close_poses(poses_in_camera_frame(pose, extrinsics), given.outputs["camera_frame"], 1e-7)


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 5)])
def test_actions_lead_from_pose_to_pose(shape):
    poses = torch.rand(*shape, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reached = compute_new_pose(poses[..., 0, :], poses_to_actions(poses)[..., 0, :])
    close(reached, poses[..., 1, :], 1e-12)


@pytest.mark.parametrize("middle", [torch.pi / 2, -torch.pi / 2, torch.pi / 2 - 1e-9])
def test_a_vertical_middle_angle(middle):
    pose = torch.tensor([0.0, 0.0, 0.0, 0.3, middle, -0.4, 0.5], dtype=torch.float64)
    still = compute_new_pose(pose, torch.zeros(7, dtype=torch.float64))
    close_poses(still, pose, 1e-7)
    assert torch.isfinite(still).all()


def test_poses_that_are_none():
    with pytest.raises(ValueError, match="`action`.*7.*6"):
        compute_new_pose(torch.zeros(2, 7), torch.zeros(2, 6))
    with pytest.raises(ValueError, match="`extrinsics`"):
        poses_in_camera_frame(torch.zeros(2, 7), torch.zeros(2, 7))
    with pytest.raises(ValueError, match="time"):
        poses_to_actions(torch.zeros(7))


# ----------------------------------------------------------------------------------------------------------- plans


def keep(seen: list, **step: Any) -> None:
    seen.append(step)


def settings_of(problem: dict) -> dict[str, Any]:
    given = {**PLAN_SETTINGS["cem"], **problem}
    given["axis"] = {int(index): value for index, value in given.get("axis", {}).items()}
    return {name: value for name, value in given.items() if name not in ("verbose", "torch_seed")}


@pytest.mark.parametrize("name", cases("b2_cem"))
def test_plans_of_the_original(name, tmp_path):
    given = case(name)
    model = loaded(given, tmp_path)
    frame, goal = given.inputs["frames"].transpose(1, 2).unbind(1)
    state = given.inputs["pose"][:, 0]
    close(model.encode_frames(frame[:, None]).flatten(1, 3), given.outputs["context"])
    for number, problem in enumerate(given.mpc):
        seen = []
        torch.manual_seed(problem["torch_seed"])
        actions = plan(model, frame, goal, state, **settings_of(problem), callback=partial(keep, seen))
        close(actions[0], given.outputs[f"m{number}_action"])
        close(torch.stack([step["energies"][0] for step in seen]), given.outputs[f"m{number}_energy"])
        close(torch.stack([step["actions"][0] for step in seen]), given.outputs[f"m{number}_actions_tried"])


@pytest.mark.parametrize("name", cases("b2_cem"))
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_rollouts_of_the_original(name, attention, tmp_path):
    given = case(name)
    model = loaded(given, tmp_path)
    model.set_attn_implementation(attention)
    actions, state = given.inputs["rollout_actions"], given.inputs["pose"][:, 0].repeat(2, 1)
    states = [state]
    for index in range(actions.shape[1]):
        states.append(compute_new_pose(states[-1], actions[:, index]))
    close(torch.stack(states, 1), given.outputs["rollout_poses"])
    known = given.outputs["context"].view(1, 1, 4, 4, -1).expand(2, -1, -1, -1, -1)
    with torch.no_grad():
        features = model.rollout(known, actions, torch.stack(states[:-1], 1))
    close(features.flatten(1, 3), given.outputs["rollout_reps"])


@pytest.mark.parametrize("name", cases("b3_energy"))
def test_energies_of_the_original(name, tmp_path):
    given, sizes = case(name), case(name).hyperparameters
    clip, states = given.inputs["clips"].transpose(1, 2), given.inputs["states"]
    names = ("nsamples", "grid_size", "action_repeat")
    landscape = energy_landscape(
        loaded(given, tmp_path), clip[:, 0], clip[:, -1], states[:, 0], **{name: sizes[name] for name in names}
    )
    close(landscape.energies.flatten(), given.outputs["energy"])
    close(landscape.heatmap[0], given.outputs["heatmap"], 1e-4)
    repeats = sizes["action_repeat"]
    close(landscape.actions.flatten(0, 2), given.outputs["actions"][:, :repeats])


@pytest.fixture(scope="module")
def model() -> VJEPA2ACModel:
    torch.manual_seed(0)
    return VJEPA2ACModel(VJEPA2Config(**TINY)).eval()


def problem(batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randn(2, batch, 3, 32, 32, generator=generator)
    return {"frame": pictures[0], "goal": pictures[1], "state": torch.rand(batch, 7, generator=generator)}


SMALL = {**PLAN_SETTINGS["notebook"], "samples": 6, "topk": 3}


def test_problems_of_a_batch_are_apart(model):
    given = problem(3)
    together = plan(model, **given, **SMALL, generator=torch.Generator().manual_seed(1), batch_size=5)
    assert together.shape == (3, 2, 7)
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in given.items()}
        close(together[row], plan(model, **one, **SMALL, generator=torch.Generator().manual_seed(1))[0])


def test_the_best_sample(model):
    seen = []
    best = plan(
        model, **problem(2), **SMALL, axis={1: 0.03}, return_best=True, callback=lambda **step: seen.append(step)
    )
    energies, actions = (torch.cat([step[name] for step in seen], 1) for name in ("energies", "actions"))
    assert torch.equal(best, actions[torch.arange(2), energies.argmin(1)])
    assert (best[..., 1] == 0.03).all()
    assert (best[..., 3:6] == 0).all()


def test_moves_stay_in_their_box(model):
    seen = []
    given = {**SMALL, "maxnorm": 0.01, "rollout": 3}
    plan(model, **problem(), **given, close_gripper=2, callback=lambda **step: seen.append(step["actions"]))
    actions = torch.cat(seen)
    assert actions[..., :3].abs().max() <= 0.01
    assert actions[:, :, :2, 6].abs().max() <= 0.75
    assert (actions[:, :, 2, 6] == 1).all()


def test_a_receding_horizon_plans_anew_after_each_action(model):
    """Every action is the first of a plan from what is seen then, with noise that goes on."""
    given, other = problem(2), problem(2, seed=1)["frame"]
    frames, states, actions = [given["frame"]], [given["state"]], []

    def act(action):
        actions.append(action)
        frames.append(frames[-1] + 0.1 * other)
        states.append(compute_new_pose(states[-1], action) + 0.01)  # not quite where the plan expects it
        return frames[-1], states[-1]

    course = receding_horizon(model, **given, act=act, moves=3, **SMALL, generator=torch.Generator().manual_seed(1))
    assert torch.equal(course.frames, torch.stack(frames, 1)) and torch.equal(course.states, torch.stack(states, 1))
    generator = torch.Generator().manual_seed(1)
    for index in range(3):
        now = {"frame": frames[index], "goal": given["goal"], "state": states[index]}
        close(course.actions[:, index], plan(model, **now, **SMALL, generator=generator)[:, 0], 0)
        assert torch.equal(course.actions[:, index], actions[index])
    with pytest.raises(ValueError, match="`moves`.*0"):
        receding_horizon(model, **given, act=act, moves=0, **SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topk": 7}, "`topk`"),
        ({"topk": 1}, "`topk`"),
        ({"rollout": 0}, "`rollout`"),
        ({"axis": {4: 0.0}}, "`axis`"),
        ({"state": torch.zeros(2, 7)}, "state"),
        ({"goal": torch.zeros(1, 3, 16, 16)}, "goal"),
    ],
)
def test_plans_that_cannot_be(model, change, message):
    with pytest.raises(ValueError, match=message):
        plan(model, **{**problem(), **SMALL, **change})


@pytest.mark.parametrize("fields", [{"nsamples": 1}, {"nsamples": 3, "action_repeat": 2, "batch_size": 4}])
def test_shapes_of_a_landscape(model, fields):
    landscape, count = energy_landscape(model, **problem(), **fields), fields["nsamples"]
    assert landscape.energies.shape == (1, count, count, count)
    close(landscape.heatmap, landscape.energies.sum(2))
    assert landscape.actions.shape == (count, count, count, fields.get("action_repeat", 1), 7)
    with pytest.raises(ValueError, match="one picture"):
        energy_landscape(model, **problem(2))


@pytest.mark.parametrize("known", [1, 2, 4])
@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex_attention"])
@pytest.mark.parametrize("extrinsics", [False, True])
def test_rollouts_keep_what_they_computed(known, attention, extrinsics):
    """As a loop that computes every step again."""
    with torch.compiler.set_stance("force_eager"):  # flex attention compiles itself, for seconds
        check_rollout(known, attention, extrinsics)


@pytest.mark.slow
def test_rollouts_with_compiled_flex_attention():
    check_rollout(2, "flex_attention", False)


def check_rollout(known: int, attention: str, extrinsics: bool) -> None:
    torch.manual_seed(0)
    built = VJEPA2ACModel(VJEPA2Config(**TINY, use_extrinsics=extrinsics)).eval()
    features, steps = torch.randn(2, known, 4, 4, 24), 4
    given = [torch.randn(2, steps, width) for width in (7, 7, 6)][: 2 + extrinsics]
    expected = features
    with torch.no_grad():
        for count in range(known, steps + 1):
            predicted = built.predictor(expected, *(each[:, :count] for each in given)).last_hidden_state
            following = torch.nn.functional.layer_norm(predicted, (24,)).unflatten(1, expected.shape[1:4])[:, -1:]
            expected = torch.cat([expected, following], dim=1)
        built.set_attn_implementation(attention)
        close(built.rollout(features, *given), expected)


# -------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", cases("b4_train"))
def test_training_of_the_original(name, tmp_path):
    given = case(name)
    model = loaded(given, tmp_path, VJEPA2ACForPreTraining).train()
    settings = given.hyperparameters["optimization"]
    optimizer = torch.optim.AdamW(model.parameter_groups(settings["weight_decay"]))
    before = {key: value.clone() for key, value in model.encoder.state_dict().items()}
    for step, expected in enumerate(given.losses):
        for group in optimizer.param_groups:
            group["lr"] = warmup_stable_decay_schedule(
                step,
                start=settings["start_lr"],
                ref=settings["lr"],
                final=settings["final_lr"],
                warmup_steps=settings["warmup"],
                anneal_steps=settings["anneal"],
                total_steps=len(given.losses),
            )
        clip, actions, states = (given.inputs[f"step{step}_{key}"] for key in ("clips", "actions", "states"))
        output = model(clip.transpose(1, 2), actions, states)
        assert [output.loss.item(), output.teacher_forcing_loss.item(), output.rollout_loss.item()] == pytest.approx(
            expected, abs=1e-5
        )
        optimizer.zero_grad()
        output.loss.backward()
        if step == 0:
            gradients = {key: each.grad for key, each in model.named_parameters() if each.grad is not None}
            compared(part(given.outputs, "step0.grad."), original_names(model, gradients))
        optimizer.step()
    compared(part(given.outputs, "final.predictor."), original_names(model, model.state_dict()))
    assert all(parameter.grad is None for parameter in model.encoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.encoder.state_dict().items())


def original_names(model: VJEPA2ACModel, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of the predictor under the original's names."""
    from vidformers.conversion.load import form_of
    from vidformers.conversion.rules import reverse

    rules = [rule for rule in form_of(model).rules(model.config) if all(name in tensors for name in rule.ours)]
    return part({name: each.detach() for name, each in reverse(rules, tensors.__getitem__)}, "predictor/")


def compared(expected: dict[str, torch.Tensor], actual: dict[str, torch.Tensor]) -> None:
    """Compare what was recorded, without biases of keys."""
    assert len(expected) > 20
    for name, value in expected.items():
        ours = actual[name] if name in actual else torch.zeros_like(value)
        if name.endswith("attn.qkv.bias"):
            value, ours = (each.unflatten(0, (3, -1))[[0, 2]] for each in (value, ours))
        torch.testing.assert_close(ours, value, rtol=0, atol=5e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_directories_keep_the_encoder_frozen(tmp_path):
    VJEPA2ACForPreTraining(VJEPA2Config(**TINY)).save_pretrained(tmp_path)
    model = VJEPA2ACForPreTraining.from_pretrained(tmp_path)
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert all(parameter.requires_grad for parameter in model.predictor.parameters())
    assert len(VJEPA2ACModel.from_pretrained(tmp_path).state_dict()) == len(model.state_dict())


@pytest.mark.parametrize("auto_steps", [1, 3])
def test_more_and_fewer_predictions_of_predictions(auto_steps):
    torch.manual_seed(0)
    model = VJEPA2ACForPreTraining(VJEPA2Config(**TINY, auto_steps=auto_steps, loss_exp=2.0))
    given = {"actions": torch.randn(2, 3, 7), "states": torch.randn(2, 4, 7)}
    output = model(torch.randn(2, 4, 3, 32, 32), **given)
    assert output.rollout_hidden_states.shape[1] == auto_steps
    close(output.rollout_hidden_states[:, 0], output.predicted_hidden_states[:, 0])
    with pytest.raises(ValueError, match="auto_steps"):
        model(torch.randn(2, auto_steps, 3, 32, 32), **given)
