"""Probes on a frozen encoder: what the command `vidformers probe` does.

Many heads, each with a learning rate and a weight decay of its own, learn from the same features. By default these are
computed once and kept in a folder. The head that is right most often on clips kept from training is chosen, and
measured once on others. `Settings.original` repeats the original's evaluation instead.

Needs `pip install 'vidformers[train]'`.

Source: facebookresearch/vjepa2 at c2963a47, `evals/video_classification_frozen`, `evals/image_classification_frozen`
and `evals/action_anticipation_frozen`.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vidformers.files import check_target, explained_write, written_whole
from vidformers.inference.new_probe import head_of, new_probe
from vidformers.progress import Progress, no_progress
from vidformers.training import ProbeTrainer
from vidformers.training.state import check_state

from .probe_card import write_card
from .probe_run import Measures, Run, feature_folder
from .probe_settings import Settings
from .probe_task import Task, prepare


__all__ = ["Measures", "Settings", "Task", "prepare", "train"]

STATE = "state.pt"


def train(
    task: Task,
    out: str | os.PathLike,
    *,
    features: str | os.PathLike | None = None,
    resume: bool = False,
    workers: int = 2,
    progress: Progress = no_progress,
    on_epoch: Callable[[Mapping[str, Any]], None] = lambda epoch: None,
) -> Measures:
    """Train heads, choose one, measure it, and write a directory for `from_pretrained` with a card.

    While it runs, the state after every epoch is kept in a folder beside `out`, from which `resume` goes on.

    Args:
        task: from [`~vidformers.commands.probe.prepare`].
        out: the directory.
        features: folder in which features are kept, for other trainings, too; by default beside `out`.
        resume: go on where an earlier run with the same task stopped.
        workers: processes that decode; 0 to decode in this one.
        progress: called with an activity and how much of it is done.
        on_epoch: called after each with its record, as in `Measures.epochs`.

    Returns:
        The measures.

    Raises:
        ValueError: `out` exists already; a state beside it is not to be resumed, or of another task; the features are
            of another model; or too many clips cannot be used.
    """
    out = check_target(out, folder=True)
    run = Run(task, feature_folder(task, features or out.with_name(f"{out.name}.features")), workers, progress)
    state = check_state(out, json.loads(json.dumps(task.record | asdict(task.settings))), resume)
    trainer, epochs = run.trainer(), []
    if (state / STATE).is_file():
        saved = torch.load(state / STATE, weights_only=True, map_location=task.model.device)
        trainer.load_state_dict(saved["trainer"])
        epochs = saved["epochs"]
    meters = None
    for number in range(len(epochs) + 1, task.settings.epochs + 1):
        record, meters = run.epoch(trainer, number)
        epochs.append(record)
        with written_whole(state / STATE) as (place,), explained_write(state / STATE):
            torch.save({"trainer": trainer.state_dict(), "epochs": epochs}, place)
        on_epoch(record)
    measures = run.conclude(trainer, epochs, meters)
    write(task, trainer, measures, out)
    shutil.rmtree(state)
    return measures


def write(task: Task, trainer: ProbeTrainer, measures: Measures, out: Path) -> None:
    """Write the encoder with the chosen head, its processor and the card."""
    model, settings = task.model, task.settings
    if model.dtype != torch.float32:  # The encoder was rounded to compute with it.
        names = ["out_layers"] if settings.out_layers is not None else []
        if task.anticipates:
            names += ["num_verb_labels", "num_noun_labels", "anticipation_frames_per_second"]
        fields = {name: getattr(model.config, name) for name in names}
        model = new_probe(task.opened, task.classes, settings.layers, torch.float32, **fields)
    for name, part in head_of(model).items():
        part.load_state_dict(getattr(trainer.heads[measures.chosen], name).state_dict())
    with written_whole(out, folder=True) as (place,):
        model.save_pretrained(place)
        task.processor.save_pretrained(place)
        write_card(place, task.record, asdict(settings), settings.heads, asdict(measures))
