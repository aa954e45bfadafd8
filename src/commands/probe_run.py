"""The training of probes while it goes on: epochs over the clips of a task, and what is measured."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from vidformers.inference.kept_features import KeptFeatures, encode
from vidformers.inference.media import Clip
from vidformers.inference.new_probe import head_of
from vidformers.inference.probe_clips import PreparedClips, labels_of, stacked
from vidformers.inference.store import revision_of
from vidformers.models.attentive_pooler import ProbeFeatures
from vidformers.progress import Progress
from vidformers.training import ProbeTrainer

from .probe_measures import Accuracy, Meter, Recalls
from .probe_task import PARTS, TEST, TRAINING, VALIDATION, Task, check_share, without


@dataclass(frozen=True)
class Measures:
    """How a training went.

    Attributes:
        epochs: for each its number, `losses` of the heads on the clips to train on, their `measures` on those to
            choose by, and `seconds`.
        chosen: number of the head.
        validation: what it measures on the clips to choose by.
        test: on those to test with, or `None` without any.
        confusion: (classes, classes), how many clips of a row's class were taken for a column's, in the test or
            without one in validation; `None` for anticipation.
        left_out: why clips were left out that could be opened and not be used, a line each.
    """

    epochs: list[dict[str, Any]]
    chosen: int
    validation: dict[str, float]
    test: dict[str, float] | None
    confusion: list[list[int]] | None
    left_out: list[str]


def feature_folder(task: Task, path: str | os.PathLike) -> KeptFeatures:
    """Where features are kept, once it is known that they are of the same model and made in the same way."""
    anticipation = {"fps": task.settings.fps} if task.anticipates else {}
    config = task.model.config.to_dict()
    return KeptFeatures(
        path,
        {
            "model": revision_of(task.opened),
            "reads": type(task.model).__name__,
            "out_layers": config.get("out_layers"),
            "num_frames": task.num_frames,
            "segments": task.settings.segments,
            "frame_step": task.settings.step,
            "dtype": str(task.model.dtype).removeprefix("torch."),
            "processor": task.processor.to_dict(),
            **anticipation,
        },
    )


@dataclass
class Run:
    """A training while it goes on."""

    task: Task
    folder: KeptFeatures
    workers: int
    progress: Progress

    def __post_init__(self) -> None:
        self.parts = dict(self.task.parts)
        self.filled: set[str] = set()
        self.problems: dict[Clip, str] = {}
        self.seconds_before = 0.0

    def trainer(self) -> ProbeTrainer:
        """The heads, which begin alike. What they learn from is known then."""
        model, settings = self.task.model, self.task.settings
        started = time.perf_counter()
        if self.task.keeps(TRAINING):
            self.fill(TRAINING)
        self.seconds_before = time.perf_counter() - started
        head = {
            f"{name}.{key}": value for name, part in head_of(model).items() for key, value in part.state_dict().items()
        }
        return ProbeTrainer(
            model,
            [head] * len(settings.heads),
            settings.heads,
            iterations_per_epoch=max(ceil(len(self.order(TRAINING, 1)) / settings.batch_size), 1),
            num_epochs=settings.epochs,
            loss=settings.loss,
        )

    def epoch(self, trainer: ProbeTrainer, number: int) -> tuple[dict[str, Any], list[Meter]]:
        """Train once on every clip, and measure all heads: the epoch's record, and the measures."""
        started, losses, weights = time.perf_counter(), [], []
        for features, labels in self.batches(TRAINING, number):
            with self.autocast():
                losses.append(trainer.train_on(features, **labels))
            weights.append(len(labels["labels"]))
            self.progress(f"epoch {number}", len(losses), trainer.iterations_per_epoch)
        if not losses:
            raise ValueError(f"No batch of {self.task.settings.batch_size} clips to train on: choose a smaller one.")
        means = np.average(torch.stack(losses).float().cpu(), axis=0, weights=weights)
        meters = self.measure(trainer, VALIDATION, number)
        record = {
            "epoch": number,
            "losses": means.tolist(),
            "measures": [meter.compute() for meter in meters],
            "seconds": time.perf_counter() - started + self.seconds_before,
        }
        self.seconds_before = 0.0
        return record, meters

    def measure(self, trainer: ProbeTrainer, part: str, epoch: int, heads: slice = slice(None)) -> list[Meter]:
        """What heads make of the clips of a part."""
        meters = [meter_of(self.task) for _ in trainer.heads[heads]]
        for features, labels in self.batches(part, epoch):
            for meter, head in zip(meters, trainer.heads[heads], strict=True):
                with self.autocast(), torch.no_grad():
                    output = self.task.model.probe_output(features, head=head.eval())
                meter.update(output, labels)
        return meters

    def conclude(self, trainer: ProbeTrainer, epochs: list[dict], meters: list[Meter] | None) -> Measures:
        """Choose the head that measures best in validation, and test it."""
        measured = epochs[-1]["measures"]
        score = meter_of(self.task).score
        chosen = max(range(len(measured)), key=lambda number: measured[number][score])
        validation, test, meter = measured[chosen], None, meters[chosen] if meters else None
        if self.task.anticipates and self.task.settings.as_original:
            # The original reports the best head of every number by itself.
            validation = {name: max(each[name] for each in measured) for name in validation}
        if self.parts[TEST]:
            (meter,) = self.measure(trainer, TEST, 0, slice(chosen, chosen + 1))
            test = meter.compute()
        elif meter is None:  # The earlier run had only to write its result.
            (meter,) = self.measure(trainer, VALIDATION, len(epochs), slice(chosen, chosen + 1))
        return Measures(epochs, chosen, validation, test, meter.confusion, list(self.problems.values()))

    def batches(self, part: str, epoch: int) -> Iterator[tuple[ProbeFeatures, dict[str, torch.Tensor]]]:
        """Features and labels of the clips of a part, those to train on in another order each time."""
        task, size = self.task, self.task.settings.batch_size
        if task.keeps(part) and part not in self.filled:
            self.fill(part)
        order, seed = self.order(part, epoch), (task.settings.seed, epoch, PARTS.index(part))
        if task.keeps(part):
            groups = [order[start : start + size] for start in range(0, len(order), size)]
            read = ((clips, self.folder.load(clips, task.prepare_of(part).views)) for clips in groups)
        else:
            data = PreparedClips(order, task.prepare_of(part), seed)
            loader = DataLoader(data, batch_size=size, num_workers=self.workers, collate_fn=stacked)
            read = self.encoded(loader)
        device = task.model.device
        for clips, features in read:
            tokens = features.tokens.to(device, torch.float32)
            labels = {name: numbers.to(device) for name, numbers in labels_of(clips).items()}
            yield ProbeFeatures(tokens, num_views=features.num_views), labels

    def encoded(self, loader: DataLoader) -> Iterator[tuple[list[Clip], ProbeFeatures]]:
        """The clips of each batch that can be used, and their features."""
        for clips, inputs, problems in loader:
            self.leave_out(problems)
            if clips:
                yield clips, encode(self.task.model, inputs)

    def order(self, part: str, epoch: int) -> list[Clip]:
        """The clips of a part in the order of an epoch."""
        clips, settings = self.parts[part], self.task.settings
        as_videos = settings.as_original and not self.task.anticipates and not self.task.is_still
        if part == TRAINING or (as_videos and part == VALIDATION):
            # The original shuffles validation too, in the same way every time.
            rng = np.random.default_rng([settings.seed, epoch if part == TRAINING else 0])
            clips = [clips[index] for index in rng.permutation(len(clips))]
        if settings.as_original and part != TEST and not self.task.is_still:
            clips = clips[: len(clips) // settings.batch_size * settings.batch_size]
        return clips

    def fill(self, part: str) -> None:
        """Make the features of a part that are not there, and leave clips out that cannot be used."""
        problems = self.folder.fill(
            self.task.model,
            self.parts[part],
            self.task.prepare_of(part),
            batch_size=self.task.settings.batch_size,
            workers=self.workers,
            progress=self.progress,
            activity=f"features for {part}",
        )
        self.leave_out(problems)
        self.parts = without(self.parts, problems)
        self.filled.add(part)

    def leave_out(self, problems: Mapping[Clip, str]) -> None:
        """Note clips that cannot be used; a ValueError once there are too many."""
        self.problems |= problems
        reasons = [*self.task.unreadable, *self.problems.values()]
        total = len(self.task.unreadable) + sum(map(len, self.task.parts.values()))
        check_share(reasons, total, self.task.settings.max_unreadable)

    def autocast(self) -> torch.autocast:
        """Let heads compute in the type of the encoder."""
        model = self.task.model
        return torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32)


def meter_of(task: Task) -> Meter:
    """What measures a head."""
    if not task.anticipates:
        return Accuracy(len(task.classes))
    config = task.model.config
    return Recalls(action=config.num_labels, verb=config.num_verb_labels, noun=config.num_noun_labels)
