"""How rates change in a training: plain functions of the optimizer's step, counted from 0.

Source: facebookresearch/vjepa2 at c2963a47, `src/utils/schedulers.py`, `app/vjepa/train.py`; at 204698b4,
`app/vjepa_2_1`. Its schedules step before the optimizer, so that step 0 of these has the value that they give 1.
"""

from collections.abc import Callable
from functools import partial
from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine_schedule(
    step: int, *, start: float, ref: float, final: float, warmup_steps: int, total_steps: int
) -> float:
    """Rise linearly from `start` to `ref`, then fall along half a cosine to `final`.

    Args:
        step: of the optimizer, from 0.
        start: value before the first step.
        ref: value after the warm-up.
        final: value at the end, which it never falls below.
        warmup_steps: steps of the warm-up.
        total_steps: all steps, those of the warm-up included.
    """
    count = step + 1
    if count < warmup_steps:
        return start + count / warmup_steps * (ref - start)
    progress = (count - warmup_steps) / max(1, total_steps - warmup_steps)
    return max(final, _half_cosine(progress, ref, final))


def linear_decay_schedule(step: int, *, ref: float, final: float, total_steps: int) -> float:
    """Go straight from `ref` to `final`, and on beyond it after `total_steps`.

    Args:
        step: of the optimizer, from 0.
        ref: value before the first step.
        final: value at the end.
        total_steps: all steps.
    """
    return ref + (step + 1) / max(1, total_steps) * (final - ref)


def cosine_decay_schedule(step: int, *, ref: float, final: float, total_steps: int) -> float:
    """Go along half a cosine from `ref` to `final`, up or down, and never beyond it. For weight decay.

    Args:
        step: of the optimizer, from 0.
        ref: value before the first step.
        final: value at the end.
        total_steps: all steps.
    """
    value = _half_cosine((step + 1) / max(1, total_steps), ref, final)
    return max(final, value) if final <= ref else min(final, value)


def warmup_stable_decay_schedule(
    step: int, *, start: float, ref: float, final: float, warmup_steps: int, anneal_steps: int, total_steps: int
) -> float:
    """Rise linearly from `start` to `ref`, stay there, and go straight to `final`.

    Args:
        step: of the optimizer, from 0.
        start: value before the first step.
        ref: value after the warm-up.
        final: value at the end.
        warmup_steps: steps of the rise.
        anneal_steps: steps of the last part.
        total_steps: all steps, those of both ends included.
    """
    count = step + 1
    if count < warmup_steps:
        return start + count / warmup_steps * (ref - start)
    past_stable = max(0, count - max(warmup_steps, total_steps - anneal_steps))
    return ref + past_stable / max(1, anneal_steps) * (final - ref)


def momentum_schedule(step: int, *, start: float, final: float, total_steps: float) -> float:
    """Go straight from `start` at step 0 to `final`, and stay there. For a teacher's momentum.

    Args:
        step: of the optimizer, from 0.
        start: first value.
        final: last value.
        total_steps: steps of the way; in the original, those of the stretched schedule (iterations of an epoch times
            epochs times `ipe_scale`), of which its training ends before.
    """
    return start + min(step / total_steps, 1.0) * (final - start)


def context_weight_schedule(step: int, *, value: float, start_step: int = 15000, end_step: int = 30000) -> float:
    """Stay at 0, then rise linearly to `value`, and stay there. For V-JEPA 2.1's loss of context tokens.

    Args:
        step: of the optimizer, from 0.
        value: last value.
        start_step: where the rise begins.
        end_step: where it ends.
    """
    return value * min(max(step - start_step, 0) / max(1, end_step - start_step), 1.0)


SCHEDULES: dict[str, Callable[..., float]] = {
    "warmup_cosine": warmup_cosine_schedule,
    "linear_decay": linear_decay_schedule,
    "cosine_decay": cosine_decay_schedule,
    "warmup_stable_decay": warmup_stable_decay_schedule,
}
"""Schedules of a learning rate by name."""


def schedule_learning_rate(optimizer: Optimizer, name: str, **arguments: float) -> LambdaLR:
    """A scheduler of PyTorch's that lets an optimizer's learning rate follow a schedule.

    Args:
        optimizer: its rates are those of `ref`; those of other groups keep their ratio to it.
        name: "warmup_cosine", "linear_decay", "cosine_decay" or "warmup_stable_decay", with or without "_schedule".
        arguments: those of the schedule, without `step`.

    Returns:
        The scheduler. Step 0 is set at once; call its `step` after the optimizer's.

    Raises:
        ValueError: an unknown name, or a `ref` that isn't above 0.
    """
    schedule = SCHEDULES.get(name.removesuffix("_schedule"))
    if schedule is None:
        raise ValueError(f"Expected the name of a schedule, {', '.join(SCHEDULES)}, got {name!r}.")
    if not arguments.get("ref", 0) > 0:
        raise ValueError(f"Expected `ref`, the optimizer's learning rate, above 0, got {arguments.get('ref')}.")
    return LambdaLR(optimizer, partial(_share, schedule, arguments))


def _share(schedule: Callable[..., float], arguments: dict[str, float], step: int) -> float:
    return schedule(step, **arguments) / arguments["ref"]


def _half_cosine(progress: float, ref: float, final: float) -> float:
    return final + (ref - final) * 0.5 * (1.0 + cos(pi * progress))
