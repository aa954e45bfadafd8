"""Schedules: the original's numbers, and what holds for all."""

import pytest
import torch

from tests.goldens_of_training import case, cases
from vidformers.training import (
    context_weight_schedule,
    cosine_decay_schedule,
    linear_decay_schedule,
    momentum_schedule,
    schedule_learning_rate,
    warmup_cosine_schedule,
    warmup_stable_decay_schedule,
)


SCHEDULES = {
    "warmup_cosine": warmup_cosine_schedule,
    "linear_decay": linear_decay_schedule,
    "cosine_wd": cosine_decay_schedule,
    "wsd": warmup_stable_decay_schedule,
    "ema2": momentum_schedule,
    "lambda": context_weight_schedule,
}
RENAMED = {"T_max": "total_steps", "lambda_value": "value"}


def arguments(row: dict) -> dict[str, float]:
    """Arguments of ours from the original's."""
    given = dict(row["args"])
    if row["kind"] == "ema2":
        (start, final), steps = given["ema"], given["ipe"] * given["epochs"] * given["ipe_scale"]
        return {"start": start, "final": final, "total_steps": steps}
    return {RENAMED.get(name, name.removesuffix("_lr").removesuffix("_wd")): value for name, value in given.items()}


@pytest.mark.parametrize("name", cases("a4_schedules"))
def test_numbers_of_the_original(name):
    given = case(name)
    for number, row in enumerate(given.rows):
        expected = given.outputs[f"r{number}"].tolist()
        steps = range(0, row["n"], 500) if row["kind"] == "lambda" else range(row["n"])
        actual = [SCHEDULES[row["kind"]](step, **arguments(row)) for step in steps]
        assert actual == pytest.approx(expected, rel=1e-12, abs=1e-15), row


def test_an_optimizer_follows():
    optimizer = torch.optim.AdamW([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.05}], lr=0.5)
    given = {"start": 0.1, "ref": 0.5, "final": 0.01, "warmup_steps": 3, "total_steps": 10}
    scheduler = schedule_learning_rate(optimizer, "warmup_cosine", **given)
    for step in range(12):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(warmup_cosine_schedule(step, **given))
        assert second == pytest.approx(first / 10)
        optimizer.step()
        scheduler.step()


def test_what_a_scheduler_needs():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    with pytest.raises(ValueError, match="warmup_cosine, linear_decay.*'cosine'"):
        schedule_learning_rate(optimizer, "cosine", ref=1.0)
    with pytest.raises(ValueError, match="`ref`"):
        schedule_learning_rate(optimizer, "linear_decay", final=0.0, total_steps=3)
