"""Planning with V-JEPA 2-AC: which actions bring a robot from what it sees to what it is to see.

The cross-entropy method draws sequences of actions, lets the model foresee where they lead, and draws again around
those that come nearest to the goal. Paper: V-JEPA 2 (https://arxiv.org/abs/2506.09985), section 3.2.

Source: facebookresearch/vjepa2 at c2963a47, `notebooks/utils/mpc_utils.py`, `world_model_wrapper.py` and
`notebooks/energy_landscape_example.ipynb`.

Shapes: B problems, S samples of each, R actions in a sequence. An action has 7 numbers, of which 4 are drawn: x, y, z
and the gripper's; it turns nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.utils import ModelOutput

from .modeling_vjepa2_ac import VJEPA2ACModel
from .poses_vjepa2 import compute_new_pose


MOST_GRIPPER = 0.75
LEAST_GRIPPER = 0.25
"""A planned action of the gripper below this is none."""


_NUMBERS = (
    "rollout samples topk cem_steps momentum_mean momentum_std momentum_mean_gripper momentum_std_gripper maxnorm"
).split()
PLAN_SETTINGS: dict[str, dict[str, float]] = {
    "cem": dict(zip(_NUMBERS, (1, 100, 10, 100, 0.25, 0.95, 0.15, 0.15, 0.05), strict=True)),
    "world_model": dict(zip(_NUMBERS, (2, 400, 10, 10, 0.15, 0.15, 0.15, 0.15, 0.05), strict=True)),
    "notebook": dict(zip(_NUMBERS, (2, 25, 10, 2, 0.15, 0.75, 0.15, 0.15, 0.075), strict=True)),
}
"""Numbers of [`plan`] in the original: those of its function, of its class `WorldModel`, and of its notebook."""


@torch.no_grad()
def plan(
    model: VJEPA2ACModel,
    frame: torch.Tensor,
    goal: torch.Tensor,
    state: torch.Tensor,
    *,
    rollout: int,
    samples: int,
    topk: int,
    cem_steps: int,
    momentum_mean: float,
    momentum_std: float,
    momentum_mean_gripper: float,
    momentum_std_gripper: float,
    maxnorm: float,
    axis: Mapping[int, float] | None = None,
    close_gripper: int | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[..., None] | None = None,
    return_best: bool = False,
    extrinsics: torch.Tensor | None = None,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Plan actions towards a goal that a picture shows. `PLAN_SETTINGS` has sets of numbers.

    Args:
        model: the world model.
        frame: (B, C, H, W), what is seen now.
        goal: (B, C, H, W), what is to be seen.
        state: (B, 7), the pose now.
        rollout: number R of actions to plan.
        samples: number S of sequences drawn at each step.
        topk: number of the best ones, around which the next step draws.
        cem_steps: number of steps.
        momentum_mean, momentum_std: share of the old mean and deviation that stays at each step.
        momentum_mean_gripper, momentum_std_gripper: likewise for the gripper.
        maxnorm: greatest change of x, of y and of z by one action, in meters.
        axis: fixed values by number: 0 to 2 for x, y and z, 3 for the gripper.
        close_gripper: number of the action, from 0, from which on the gripper closes, by 1.
        generator: draws the noise, on its device; by default torch's global generator does, on the model's device.
        callback: called after each step by keyword with `step`, `actions` (B, S, R, 7), `energies` (B, S), and `mean`
            and `std` (B, R, 4) of what the next step draws.
        return_best: return the sample of the least energy of all steps, as it was tried.
        extrinsics: (B, 6), the camera's pose, for models with `config.use_extrinsics`.
        batch_size: most sequences that the model foresees at once; by default all.

    Returns:
        (B, R, 7): the last mean, where gripper actions below 0.25 are none; or the best sample.

    Raises:
        ValueError: pictures, state or numbers that don't fit.
    """
    _check_problem(frame, goal, state)
    _check_numbers(rollout, samples, topk, cem_steps, maxnorm, axis)
    known, wanted = (model.encode_frames(picture[:, None].to(model.device)) for picture in (frame, goal))
    state = state.to(model.device, torch.promote_types(state.dtype, torch.float32))
    start = _repeat(state, samples)  # (B·S, 7)
    cameras = None if extrinsics is None else _repeat(extrinsics.to(model.device), samples)
    mean, std = _start(state, rollout, maxnorm, axis or {})
    kept = torch.tensor([[momentum_mean] * 3 + [momentum_mean_gripper], [momentum_std] * 3 + [momentum_std_gripper]])
    kept = kept.to(mean)[:, None, None]
    best, least = torch.zeros_like(mean), mean.new_full(mean.shape[:1], torch.inf)
    for step in range(cem_steps):
        actions = _draw(mean, std, samples, maxnorm, axis or {}, close_gripper, generator)  # (B, S, R, 7)
        energies = _energies(model, known, wanted, start, actions, cameras, batch_size)  # (B, S)
        elite = energies.topk(topk, largest=False).indices
        chosen = actions[..., [0, 1, 2, 6]].take_along_dim(elite[..., None, None], dim=1)  # (B, topk, R, 4)
        mean = chosen.mean(1) * (1 - kept[0]) + mean * kept[0]
        std = chosen.std(1) * (1 - kept[1]) + std * kept[1]
        first = elite[:, :1]
        better = energies.take_along_dim(first, 1)[:, 0] < least
        best = torch.where(better[:, None, None], chosen[:, 0], best)
        least = torch.minimum(least, energies.amin(1))
        if callback is not None:
            callback(step=step, actions=actions, energies=energies, mean=mean, std=std)
    if return_best:
        return _whole(best)
    gripper = mean[..., 3:]
    return _whole(torch.cat([mean[..., :3], torch.where(gripper.abs() < LEAST_GRIPPER, 0.0, gripper)], dim=-1))


def _start(
    state: torch.Tensor, rollout: int, maxnorm: float, axis: Mapping[int, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation (B, R, 4) that the first step draws with."""
    mean = state.new_zeros(state.shape[0], rollout, 4, dtype=torch.float32)
    std = torch.full_like(mean, maxnorm)
    std[..., 3] = 1.0
    for index, value in axis.items():
        mean[..., index] = value
    return mean, std


def _draw(
    mean: torch.Tensor,
    std: torch.Tensor,
    samples: int,
    maxnorm: float,
    axis: Mapping[int, float],
    close_gripper: int | None,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """Samples (B, S, R, 7); those of all problems share the noise, and actions are drawn one after the other."""
    device = mean.device if generator is None else generator.device
    noise = [torch.randn(samples, 4, generator=generator, device=device) for _ in range(mean.shape[1])]
    drawn = torch.stack(noise, dim=1).to(mean.device) * std[:, None] + mean[:, None]  # (B, S, R, 4)
    limits = drawn.new_tensor([maxnorm] * 3 + [MOST_GRIPPER])
    drawn = drawn.clamp(-limits, limits)
    for index, value in axis.items():
        drawn[..., index] = value
    if close_gripper is not None:
        drawn[..., close_gripper:, 3] = 1.0
    return _whole(drawn)


def _whole(drawn: torch.Tensor) -> torch.Tensor:
    """Actions (…, 7) of the four numbers (…, 4) that are drawn."""
    turns = drawn.new_zeros(*drawn.shape[:-1], 3)
    return torch.cat([drawn[..., :3], turns, drawn[..., 3:]], dim=-1)


def _energies(
    model: VJEPA2ACModel,
    known: torch.Tensor,
    wanted: torch.Tensor,
    start: torch.Tensor,
    actions: torch.Tensor,
    cameras: torch.Tensor | None,
    batch_size: int | None,
) -> torch.Tensor:
    """How far (B, S) the frames foreseen after the last action are from the goal: mean of absolute differences."""
    shape, flat = actions.shape[:2], actions.flatten(0, 1)  # (B·S, R, 7)
    states = _states(start, flat)
    if cameras is not None:
        cameras = cameras[:, None].expand(-1, flat.shape[1], -1)
    energies = []
    for rows in torch.arange(len(flat), device=flat.device).split(batch_size or len(flat)):
        problems = rows // shape[1]
        reached = model.rollout(known[problems], flat[rows], states[rows], None if cameras is None else cameras[rows])[
            :, -1
        ]  # (rows, h, w, D)
        energies.append((reached.float() - wanted[problems, 0].float()).abs().mean((1, 2, 3)))
    return torch.cat(energies).unflatten(0, shape)


def _states(start: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """The poses (N, R, 7) at which actions (N, R, 7) are done."""
    states = [start]
    for index in range(actions.shape[1] - 1):
        states.append(compute_new_pose(states[-1], actions[:, index]))
    return torch.stack(states, dim=1)


def _repeat(rows: torch.Tensor, samples: int) -> torch.Tensor:
    return rows.repeat_interleave(samples, dim=0)


@dataclass
class VJEPA2Course(ModelOutput):
    """What [`receding_horizon`] did and what came of it.

    Args:
        actions: (B, M, 7), the actions that were done.
        states: (B, M + 1, 7), the poses from the first to the last.
        frames: (B, M + 1, C, H, W), what was seen at them.
    """

    actions: torch.Tensor | None = None
    states: torch.Tensor | None = None
    frames: torch.Tensor | None = None


def receding_horizon(
    model: VJEPA2ACModel,
    frame: torch.Tensor,
    goal: torch.Tensor,
    state: torch.Tensor,
    act: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    *,
    moves: int,
    **settings: Any,
) -> VJEPA2Course:
    """Move towards a goal: plan, do the first action of the plan alone, look, and plan anew.

    The original plans once; its paper (section 3.2) acts in this way.

    Args:
        model: the world model.
        frame: (B, C, H, W), what is seen now.
        goal: (B, C, H, W), what is to be seen.
        state: (B, 7), the pose now.
        act: does actions (B, 7), and returns the frame and the state that follow, shaped as `frame` and `state`.
        moves: number M of actions to do.
        settings: further arguments of [`plan`].

    Returns:
        [`VJEPA2Course`].

    Raises:
        ValueError: no moves, or what [`plan`] doesn't take.
    """
    if moves < 1:
        raise ValueError(f"Expected `moves` of at least 1, got {moves}.")
    actions, states, frames = [], [state], [frame]
    for _ in range(moves):
        actions.append(plan(model, frames[-1], goal, states[-1], **settings)[:, 0])
        frame, state = act(actions[-1])
        frames.append(frame)
        states.append(state)
    return VJEPA2Course(*(torch.stack(each, dim=1) for each in (actions, states, frames)))


@dataclass
class VJEPA2EnergyLandscape(ModelOutput):
    """What [`energy_landscape`] computes.

    Args:
        energies: (1, n, n, n) by change of x, y and z.
        heatmap: (1, n, n) by change of x and z: the sum over y, as the original plots it.
        actions: (n, n, n, action_repeat, 7), what was done.
    """

    energies: torch.Tensor | None = None
    heatmap: torch.Tensor | None = None
    actions: torch.Tensor | None = None


@torch.no_grad()
def energy_landscape(
    model: VJEPA2ACModel,
    frame: torch.Tensor,
    goal: torch.Tensor,
    state: torch.Tensor,
    nsamples: int = 5,
    grid_size: float = 0.075,
    action_repeat: int = 1,
    extrinsics: torch.Tensor | None = None,
    batch_size: int | None = None,
) -> VJEPA2EnergyLandscape:
    """How far each move of a grid leaves a robot from a goal.

    Args:
        model: the world model.
        frame: (1, C, H, W), what is seen now.
        goal: (1, C, H, W), what is to be seen.
        state: (1, 7), the pose now.
        nsamples: number n of moves along each of x, y and z.
        grid_size: they reach from minus this to this, in meters.
        action_repeat: how often a move is done.
        extrinsics: (1, 6), the camera's pose, for models with `config.use_extrinsics`.
        batch_size: most moves that the model foresees at once; by default all.

    Returns:
        [`VJEPA2EnergyLandscape`].

    Raises:
        ValueError: several problems, or pictures, state or numbers that don't fit.
    """
    _check_problem(frame, goal, state)
    if len(frame) != 1 or nsamples < 1 or action_repeat < 1 or not grid_size > 0:
        raise ValueError(
            f"Expected one picture, `nsamples` and `action_repeat` of at least 1 and `grid_size` above 0; got "
            f"{len(frame)}, {nsamples}, {action_repeat} and {grid_size}."
        )
    known, wanted = (model.encode_frames(picture[:, None].to(model.device)) for picture in (frame, goal))
    state = state.to(model.device, torch.promote_types(state.dtype, torch.float32))
    # As NumPy rounds the grid, whose single row begins at its lower end.
    values = torch.from_numpy(np.linspace(-grid_size, grid_size, nsamples)).float().to(model.device)
    moves = torch.stack(torch.meshgrid(values, values, values, indexing="ij"), dim=-1)  # (n, n, n, 3)
    actions = torch.cat([moves, moves.new_zeros(*moves.shape[:-1], 4)], dim=-1)
    actions = actions[..., None, :].expand(-1, -1, -1, action_repeat, -1)
    flat = actions.flatten(0, 2)[None]  # (1, n³, action_repeat, 7)
    start = _repeat(state, flat.shape[1])
    cameras = None if extrinsics is None else _repeat(extrinsics.to(model.device), flat.shape[1])
    energies = _energies(model, known, wanted, start, flat, cameras, batch_size)
    energies = energies.unflatten(1, (nsamples,) * 3)
    return VJEPA2EnergyLandscape(energies=energies, heatmap=energies.sum(2), actions=actions)


def _check_problem(frame: torch.Tensor, goal: torch.Tensor, state: torch.Tensor) -> None:
    if frame.ndim != 4 or frame.shape != goal.shape or tuple(state.shape) != (len(frame), 7):
        raise ValueError(
            "Expected pictures `frame` and `goal` of one shape (batch, channels, height, width) and `state` of shape "
            f"(batch, 7), got {tuple(frame.shape)}, {tuple(goal.shape)} and {tuple(state.shape)}."
        )


def _check_numbers(
    rollout: int, samples: int, topk: int, cem_steps: int, maxnorm: float, axis: Mapping[int, float] | None
) -> None:
    if min(rollout, cem_steps) < 1 or not 2 <= topk <= samples or not maxnorm > 0:
        raise ValueError(
            f"Expected `rollout` ({rollout}) and `cem_steps` ({cem_steps}) of at least 1, `topk` ({topk}) of at least "
            f"2 and at most `samples` ({samples}), and `maxnorm` ({maxnorm}) above 0."
        )
    if any(index not in range(4) for index in axis or {}):
        raise ValueError(f"`axis` fixes 0, 1, 2 (x, y, z) or 3 (the gripper), got {list(axis)}.")


__all__ = ["energy_landscape", "plan", "receding_horizon"]
