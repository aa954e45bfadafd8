"""What the trainings of the demo models have in common: settings, optimizers, their schedule, and the loop."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Settings:
    """What every training depends on; each model's settings add its sizes.

    With `muon`, Muon trains the matrices of the blocks, which takes half the steps, and AdamW the rest.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    weight_decay: float = 0.05
    warmup_steps: int = 30
    evaluate_every: int = 50
    muon: bool = False


def fit(
    model: nn.Module,
    settings: Settings,
    batch_loss: Callable[[np.random.Generator], torch.Tensor],
    evaluate: Callable[[], dict],
    after_step: Callable[[], None] = lambda: None,
) -> dict:
    """Train a model in place and leave it in evaluation mode.

    Args:
        model: with its initial weights.
        settings: the schedule.
        batch_loss: draws a batch and gives its loss; the generator that it is called with goes on from call to call.
        evaluate: what the curve notes beside the loss, of the model in evaluation mode.
        after_step: called after every step of the optimizer.

    Returns:
        Settings, number of threads, seconds and the curve, as `training.json` holds them.
    """
    rng = np.random.default_rng([settings.seed, 0])
    optimizers = build_optimizers(model, settings)
    rate = partial(rate_at, settings=settings)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    curve, losses, start, processor_start = [], [], time.perf_counter(), time.process_time()
    model.train()
    for step in range(1, settings.steps + 1):
        loss = batch_loss(rng)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for stepped in (*optimizers, *schedules):
            stepped.step()
        after_step()
        losses.append(loss.item())
        if step % settings.evaluate_every == 0 or step == settings.steps:
            model.eval()
            curve.append({"step": step, "loss": round(float(np.mean(losses)), 4), **evaluate()})
            model.train()
            losses = []
            print(f"{time.perf_counter() - start:6.0f} s  {json.dumps(curve[-1])}", flush=True)
    model.eval()
    return {
        "settings": asdict(settings),
        "threads": torch.get_num_threads(),
        "training_seconds": round(time.perf_counter() - start),
        "processor_seconds": round(time.process_time() - processor_start),
        "curve": curve,
    }


def build_optimizers(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon where settings say so, with decay of matrices and tables alone."""
    inner = {id(each) for each in inner_matrices(model)} if settings.muon else set()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rest = [parameter for parameter in trained if id(parameter) not in inner]
    decayed = [parameter for parameter in rest if parameter.ndim > 1]
    others = [parameter for parameter in rest if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))]
    if settings.muon:
        matrices = [parameter for parameter in trained if id(parameter) in inner]
        fields = {"weight_decay": settings.weight_decay, "adjust_lr_fn": "match_rms_adamw"}
        optimizers.append(torch.optim.Muon(matrices, lr=settings.learning_rate, **fields))
    return optimizers


def inner_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights of linear layers within blocks: those of modules in a list."""
    blocks = [block for each in model.modules() if isinstance(each, nn.ModuleList) for block in each]
    return [module.weight for block in blocks for module in block.modules() if isinstance(module, nn.Linear)]


def rate_at(step: int, settings: Settings) -> float:
    """Share of the learning rate at a step: up in a line, down in half a cosine."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 + 0.5 * float(np.cos(np.pi * min(1.0, done)))
