"""Probes on a frozen encoder: what the command `vidformers probe` does.

Many heads, each with a learning rate and a weight decay of its own, learn from the same features. By default these are
computed once and kept in a folder. The head that is right most often on clips kept from training is chosen, and
measured once on others. `Settings.original` repeats the original's evaluation instead.

Needs `pip install 'vidformers[train]'`.

Source: facebookresearch/vjepa2 at c2963a47, `evals/video_classification_frozen` and
`evals/action_anticipation_frozen`.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from vidformers.files import check_target, explained_write, written_whole
from vidformers.inference.actions import Action, find_actions, hold_out, is_annotation, read_annotations
from vidformers.inference.clips import frames_of_a_clip
from vidformers.inference.device import find_device
from vidformers.inference.directory import Directory
from vidformers.inference.kept_features import KeptFeatures, encode
from vidformers.inference.labeled_clips import Clip, check_counts, find_clips, relabeled, split, unreadable
from vidformers.inference.new_probe import head_of, new_probe
from vidformers.inference.probe_clips import AnticipationClips, ClipViews, PreparedClips, labels_of, stacked
from vidformers.inference.store import revision_of
from vidformers.models.attentive_pooler import ProbeFeatures
from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.progress import Progress, no_progress
from vidformers.training import ProbeTrainer
from vidformers.training.state import check_installed, check_state
from vidformers.video.processor import VideoProcessor

from .probe_card import write_card
from .probe_measures import Accuracy, Meter, Recalls


TRAINING, VALIDATION, TEST = PARTS = ("training", "validation", "test")
ORIGINAL_STEP = 4
STATE = "state.pt"


@dataclass(frozen=True)
class Settings:
    """How probes are trained and measured.

    Attributes:
        epochs: passes over the clips.
        batch_size: clips of a step.
        rates: learning rates. Each falls along a cosine to zero.
        decays: weight decays; there is a head for every pair of both.
        layers: self-attention blocks of a head before its cross-attention.
        segments: parts of a video, of each of which the model sees a clip.
        views: crops of a clip in validation and test, whose probabilities are averaged; in training it is one.
        frame_step: frames from one of a clip to the next; `None` for the model's processor to choose and prepare them.
        fps: frames per second of the clips before an action.
        out_layers: blocks of a V-JEPA encoder whose outputs heads read side by side, from 0; by default the last one.
        augment: draw training clips and their views anew in every epoch, so that none of their features are kept.
        loss: "cross_entropy" or "focal".
        as_original: validation takes drawn clips and leaves out the last ones that fill no batch.
        max_unreadable: share of the clips that may be unreadable.
        seed: decides the splits, the order, what is drawn and the new heads.
    """

    epochs: int = 20
    batch_size: int = 8
    rates: tuple[float, ...] = (1e-3, 3e-3)
    decays: tuple[float, ...] = (0.1,)
    layers: int = 0
    segments: int = 1
    views: int = 1
    frame_step: int | None = None
    fps: float = 8.0
    out_layers: tuple[int, ...] | None = None
    augment: bool = False
    loss: str = "cross_entropy"
    as_original: bool = False
    max_unreadable: float = 0.1
    seed: int = 0

    @classmethod
    def original(cls, **others: Any) -> "Settings":
        """Those of the original's evaluation of classifiers, as far as `others` don't say otherwise."""
        published = {
            "rates": (1e-4, 3e-4, 1e-3, 3e-3, 5e-3),
            "decays": (0.01, 0.1, 0.4, 0.8),
            "layers": 3,
            "views": 3,
            "frame_step": ORIGINAL_STEP,
            "augment": True,
        }
        return cls(as_original=True, **{**published, **others})

    @property
    def step(self) -> int | None:
        """`frame_step`, or that of the original where the processor can't make segments, views and augmentations."""
        plain = self.segments == self.views == 1 and not self.augment
        return self.frame_step or (None if plain else ORIGINAL_STEP)

    @property
    def heads(self) -> list[dict[str, float]]:
        """What [`~vidformers.training.ProbeTrainer`] takes, a head for every pair of rate and decay."""
        return [
            {"ref_lr": rate, "start_lr": rate, "final_lr": 0.0, "warmup": 0.0, "ref_wd": decay, "final_wd": decay}
            for rate, decay in product(self.rates, self.decays)
        ]


@dataclass(frozen=True)
class Task:
    """What probes are trained on.

    Attributes:
        model: the frozen encoder, with a new head.
        opened: the directory that the encoder is from.
        processor: its video processor.
        source: what the clips were found in, as given.
        classes: names of the classes in the order of their numbers.
        parts: the clips to train on, to choose by and to test with; the latter may be none.
        num_frames: frames of a clip.
        unreadable: why files were left out, a line each.
        settings: how to train.
    """

    model: VideoPreTrainedModel
    opened: Directory
    processor: VideoProcessor
    source: str
    classes: tuple[str, ...]
    parts: Mapping[str, Sequence[Clip]]
    num_frames: int
    unreadable: tuple[str, ...]
    settings: Settings

    @property
    def anticipates(self) -> bool:
        """Whether what follows a clip is asked for."""
        return isinstance(self.parts[TRAINING][0], Action)

    @property
    def record(self) -> dict[str, Any]:
        """What the task is, in plain values."""
        return {
            "base": str(self.opened.path),
            "source": self.source,
            "model_class": type(self.model).__name__,
            "classes": list(self.classes),
            **{f"{part}_clips": len(clips) for part, clips in self.parts.items()},
            "unreadable": len(self.unreadable),
            "num_frames": self.num_frames,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }

    def prepare_of(self, part: str) -> ClipViews | AnticipationClips:
        """What makes model input of the clips of a part."""
        settings, augment = self.settings, self.settings.augment and part == TRAINING
        if self.anticipates:
            return AnticipationClips(self.processor, self.num_frames, settings.fps, augment)
        drawn = augment or (settings.as_original and part == VALIDATION)
        views = 1 if part == TRAINING else settings.views
        return ClipViews(self.processor, self.num_frames, settings.segments, views, settings.step, drawn, augment)

    def keeps(self, part: str) -> bool:
        """Whether the features of a part are the same in every epoch."""
        prepare = self.prepare_of(part)
        return not (prepare.augment or getattr(prepare, "drawn", False))


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
        left_out: why clips were left out that could be opened and not be read, a line each.
    """

    epochs: list[dict[str, Any]]
    chosen: int
    validation: dict[str, float]
    test: dict[str, float] | None
    confusion: list[list[int]] | None
    left_out: list[str]


# --------------------------------------------------------------------------------------------------- clips and model


def prepare(
    source: str | os.PathLike,
    model: str | os.PathLike,
    settings: Settings | None = None,
    *,
    validation: str | os.PathLike | None = None,
    test: str | os.PathLike | None = None,
    videos: str | os.PathLike | None = None,
    validation_share: float = 0.2,
    test_share: float = 0.2,
    num_frames: int | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress = no_progress,
) -> Task:
    """Find clips, open each once, and load an encoder with a new head.

    Args:
        source: what [`~vidformers.inference.labeled_clips.find_clips`] takes; or a CSV file of actions as
            EPIC-KITCHENS-100 has them, which are to be anticipated.
        model: a directory or the name of a repository on the Hub, of any family.
        settings: how to train.
        validation: clips to choose by, as `source`; by default a share of it is.
        test: clips to test with, likewise. As the original, `settings.as_original` tests with none by default.
        videos: the folder with the videos of actions; by default that of the CSV file.
        validation_share: share of every class, or of the videos with actions; at least one.
        test_share: likewise; 0 for no test.
        num_frames: frames to take of a clip; by default the model's number.
        device: where the model runs; by default an accelerator, where there is one.
        dtype: type that the model computes in; the heads' weights stay float32.
        progress: called with an activity and how much of it is done.

    Returns:
        The task for [`~vidformers.commands.probe.train`].

    Raises:
        ModuleNotFoundError: a package that this needs is not installed.
        OSError: there is no such model.
        ValueError: the model has no tokens of videos, a class has too few clips, or too many cannot be read.
    """
    check_installed("matplotlib", "the pictures of the model card")
    settings, opened = settings or Settings(), Directory.open(model)
    processor = AutoVideoProcessor.from_pretrained(model) if opened.input != "text" else None
    shares = {VALIDATION: validation_share, TEST: 0.0 if settings.as_original else test_share}
    sources, numbers = {VALIDATION: validation, TEST: test}, {}
    if is_annotation(source):
        parts, classes, sets = _actions(source, sources, shares, videos, settings.seed)
        numbers = {"num_verb_labels": len(sets.verbs), "num_noun_labels": len(sets.nouns)}
        numbers["anticipation_frames_per_second"] = settings.fps
    else:
        parts, classes = _clips(source, sources, shares, settings.seed)
    if not parts[VALIDATION]:
        raise ValueError("There is nothing to choose a head by: give clips to validate with, or a share above 0.")
    problems = unreadable([clip for clips in parts.values() for clip in clips], progress)
    parts = without(parts, problems, settings.max_unreadable)
    torch.manual_seed(settings.seed)
    if settings.out_layers is not None:
        numbers["out_layers"] = list(settings.out_layers)
    probe = new_probe(opened, classes, settings.layers, dtype, **numbers).to(find_device(device))
    num_frames = num_frames or frames_of_a_clip(probe, processor)
    return Task(
        probe, opened, processor, str(source), tuple(classes), parts, num_frames, tuple(problems.values()), settings
    )


def _clips(
    source: str | os.PathLike,
    sources: Mapping[str, str | os.PathLike | None],
    shares: Mapping[str, float],
    seed: int,
) -> tuple[dict[str, list[Clip]], list[str]]:
    """The clips of each part, and the names of their classes."""
    clips, classes = find_clips(source)
    missing = [part for part, given in sources.items() if given is None and shares[part] > 0]
    check_counts(clips, classes, 1 + len(missing))
    parts, left = {}, 1.0
    for number, part in enumerate(missing):
        clips, parts[part] = split(clips, shares[part] / left, seed + number)
        left -= shares[part]
    for part, given in sources.items():
        if given is not None:
            parts[part] = relabeled(*find_clips(given), classes)
    return {part: {TRAINING: clips, **parts}.get(part, []) for part in PARTS}, classes


def _actions(
    source: str | os.PathLike,
    sources: Mapping[str, str | os.PathLike | None],
    shares: Mapping[str, float],
    videos: str | os.PathLike | None,
    seed: int,
) -> tuple[dict[str, list[Clip]], list[str], Any]:
    """The actions of each part, their names, and how verbs and nouns are numbered."""
    rows, parts, left = read_annotations(source), {}, 1.0
    for number, (part, given) in enumerate(sources.items()):
        if given is not None:
            parts[part] = read_annotations(given)
        elif shares[part] > 0:
            rows, parts[part] = hold_out(rows, shares[part] / left, seed + number)
            left -= shares[part]
    found, classes, sets = find_actions([rows, *parts.values()], videos or Path(source).parent)
    by_part = dict(zip((TRAINING, *parts), found, strict=True))
    return {part: by_part.get(part, []) for part in PARTS}, classes, sets


def without(
    parts: Mapping[str, Sequence[Clip]], problems: Mapping[Clip, str], max_share: float
) -> dict[str, list[Clip]]:
    """The clips of each part that can be read.

    Raises:
        ValueError: a greater share cannot, or none of a part can.
    """
    total = sum(map(len, parts.values()))
    if len(problems) > max_share * total:
        listed = "\n".join(list(problems.values())[:5])
        raise ValueError(
            f"{len(problems)} of {total} clips cannot be read, more than a share of {max_share:g} "
            f"(--max-unreadable):\n{listed}"
        )
    kept = {part: [clip for clip in clips if clip not in problems] for part, clips in parts.items()}
    empty = [part for part, clips in kept.items() if parts[part] and not clips]
    if empty:
        raise ValueError(f"No clip that can be read is left for {', '.join(empty)}.")
    return kept


# ------------------------------------------------------------------------------------------------------------ training


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
        ValueError: `out` exists already; a state beside it is not to be resumed, or of another task; or the features
            are of another model.
    """
    out = check_target(out, folder=True)
    run = _Run(task, _folder(task, features or out.with_name(f"{out.name}.features")), workers, progress)
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


def _folder(task: Task, path: str | os.PathLike) -> KeptFeatures:
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
class _Run:
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
        count = len(self.parts[TRAINING]) / settings.batch_size
        return ProbeTrainer(
            model,
            [head] * len(settings.heads),
            settings.heads,
            iterations_per_epoch=max(int(count), 1) if settings.as_original else ceil(count),
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
        """The clips of each batch that could be read, and their features."""
        for clips, inputs, problems in loader:
            self.problems |= problems
            if clips:
                yield clips, encode(self.task.model, inputs)

    def order(self, part: str, epoch: int) -> list[Clip]:
        """The clips of a part in the order of an epoch."""
        clips, settings = self.parts[part], self.task.settings
        shuffled = part == TRAINING or (settings.as_original and part == VALIDATION and not self.task.anticipates)
        if shuffled:
            # The original shuffles validation too, in the same way every time.
            rng = np.random.default_rng([settings.seed, epoch if part == TRAINING else 0])
            clips = [clips[index] for index in rng.permutation(len(clips))]
        whole = len(clips) // settings.batch_size * settings.batch_size
        return clips[:whole] if settings.as_original and part != TEST else clips

    def fill(self, part: str) -> None:
        """Make the features of a part that are not there, and leave clips out that cannot be read."""
        problems = self.folder.fill(
            self.task.model,
            self.parts[part],
            self.task.prepare_of(part),
            batch_size=self.task.settings.batch_size,
            workers=self.workers,
            progress=self.progress,
            activity=f"features for {part}",
        )
        self.problems |= problems
        self.parts |= without({part: self.parts[part]}, problems, self.task.settings.max_unreadable)
        self.filled.add(part)

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


# ------------------------------------------------------------------------------------------------------------- results


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
