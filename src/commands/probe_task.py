"""What probes learn from: clips in three parts, an encoder with a new head, and how it reads them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from vidformers.inference.actions import Action, find_actions, hold_out, is_annotation, read_annotations
from vidformers.inference.clips import frames_of_a_clip
from vidformers.inference.device import find_device
from vidformers.inference.directory import Directory
from vidformers.inference.labeled_clips import check_counts, find_clips, medium_of, relabeled, split, unreadable
from vidformers.inference.media import IMAGES, Clip, ImageClip
from vidformers.inference.new_probe import new_probe
from vidformers.inference.probe_clips import AnticipationClips, ClipViews, Prepare, StillClips
from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.progress import Progress, no_progress
from vidformers.training.state import check_installed
from vidformers.video.processor import VideoProcessor

from .probe_settings import Settings


TRAINING, VALIDATION, TEST = PARTS = ("training", "validation", "test")
FOLDERS = {"train": TRAINING, "val": VALIDATION, "validation": VALIDATION, "test": TEST}
"""Folders of a source that are its parts, as data sets are often laid out."""
MOST_STILL_FRAMES = 16
"""The original shows an image as 16 frames; to its ViT-g and G as 18, for which `num_frames` is there."""


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
    def is_still(self) -> bool:
        """Whether clips are images."""
        return isinstance(self.parts[TRAINING][0], ImageClip)

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
            "images": self.is_still,
            "dtype": str(self.model.dtype).removeprefix("torch."),
        }

    def prepare_of(self, part: str) -> Prepare:
        """What makes model input of the clips of a part."""
        settings, augment = self.settings, self.settings.augment and part == TRAINING
        if self.anticipates:
            return AnticipationClips(self.processor, self.num_frames, settings.fps, augment)
        if self.is_still:
            return StillClips(self.processor, self.num_frames, settings.augment, augment)
        drawn = augment or (settings.as_original and part == VALIDATION)
        views = 1 if part == TRAINING else settings.views
        return ClipViews(self.processor, self.num_frames, settings.segments, views, settings.step, drawn, augment)

    def keeps(self, part: str) -> bool:
        """Whether the features of a part are the same in every epoch."""
        return self.prepare_of(part).repeats


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
        source: what [`~vidformers.inference.labeled_clips.find_clips`] takes, of videos or of images; a folder that
            is divided into such, `train` and `val` or `test`; or a CSV file of actions as EPIC-KITCHENS-100 has them,
            which are to be anticipated.
        model: a directory or the name of a repository on the Hub, of any family.
        settings: how to train.
        validation: clips to choose by, as `source`; by default a share of it is.
        test: clips to test with, likewise. As the original, `settings.as_original` tests with none by default.
        videos: the folder with the videos of actions; by default that of the CSV file.
        validation_share: share of every class, or of the videos with actions; at least one.
        test_share: likewise; 0 for no test.
        num_frames: frames to take of a clip; by default the model's number. An image is shown as so many, by default
            at most 16, and once to a model without a number.
        device: where the model runs; by default an accelerator, where there is one.
        dtype: type that the model computes in; the heads' weights stay float32.
        progress: called with an activity and how much of it is done.

    Returns:
        The task for [`~vidformers.commands.probe.train`].

    Raises:
        ModuleNotFoundError: a package that this needs is not installed.
        OSError: there is no such model.
        ValueError: the model has no tokens of videos, a class has too few clips, too many cannot be opened, or the
            settings are none of images.
    """
    check_installed("matplotlib", "the pictures of the model card")
    settings, opened = settings or Settings(), Directory.open(model)
    processor = AutoVideoProcessor.from_pretrained(model) if opened.input != "text" else None
    shares = {VALIDATION: validation_share, TEST: 0.0 if settings.as_original else test_share}
    sources = {VALIDATION: validation, TEST: test}
    if is_annotation(source):
        parts, classes, numbers = _action_parts(source, sources, shares, videos, settings)
    else:
        (parts, classes), numbers = _labeled_parts(source, sources, shares, settings.seed), {}
    if not parts[VALIDATION]:
        raise ValueError("There is nothing to choose a head by: give clips to validate with, or a share above 0.")
    parts, problems = _usable(parts, settings.max_unreadable, progress)
    still = isinstance(parts[TRAINING][0], ImageClip)
    if still:
        settings.check_for_images()
    torch.manual_seed(settings.seed)
    if settings.out_layers is not None:
        numbers["out_layers"] = list(settings.out_layers)
    probe = new_probe(opened, classes, settings.layers, dtype, **numbers).to(find_device(device))
    usual = min(probe.frames_per_clip or 1, MOST_STILL_FRAMES) if still else frames_of_a_clip(probe, processor)
    num_frames = num_frames or usual
    return Task(probe, opened, processor, str(source), tuple(classes), parts, num_frames, problems, settings)


def _labeled_parts(
    source: str | os.PathLike, sources: Mapping[str, str | os.PathLike | None], shares: Mapping[str, float], seed: int
) -> tuple[dict[str, list[Clip]], list[str]]:
    """The clips of each part, and the names of their classes."""
    folders, medium = part_folders(source), medium_of(source)
    usual = {part: folder for part, folder in folders.items() if part != TEST or shares[TEST] > 0}
    sources = {part: given or usual.get(part) for part, given in sources.items()}
    clips, classes = find_clips(folders.get(TRAINING, source), medium)
    check_counts(clips, classes, 1 + len(_drawn(sources, shares)), medium)
    clips, parts = draw_parts(clips, sources, shares, seed, split)
    for part, given in sources.items():
        if given is not None:
            parts[part] = relabeled(*find_clips(given, medium), classes)
    return {part: {TRAINING: clips, **parts}.get(part, []) for part in PARTS}, classes


def _action_parts(
    source: str | os.PathLike,
    sources: Mapping[str, str | os.PathLike | None],
    shares: Mapping[str, float],
    videos: str | os.PathLike | None,
    settings: Settings,
) -> tuple[dict[str, list[Clip]], list[str], dict[str, Any]]:
    """The actions of each part, their names, and what a model's configuration says of them."""
    rows, parts = draw_parts(read_annotations(source), sources, shares, settings.seed, hold_out)
    parts |= {part: read_annotations(given) for part, given in sources.items() if given is not None}
    found, classes, sets = find_actions([rows, *parts.values()], videos or Path(source).parent)
    by_part = dict(zip((TRAINING, *parts), found, strict=True))
    numbers = {"num_verb_labels": len(sets.verbs), "num_noun_labels": len(sets.nouns)}
    numbers["anticipation_frames_per_second"] = settings.fps
    return {part: by_part.get(part, []) for part in PARTS}, classes, numbers


def _usable(
    parts: Mapping[str, Sequence[Clip]], max_share: float, progress: Progress
) -> tuple[dict[str, list[Clip]], tuple[str, ...]]:
    """The clips of each part that can be opened, and why others cannot."""
    clips = [clip for of_part in parts.values() for clip in of_part]
    problems = unreadable(clips, progress)
    check_share(list(problems.values()), len(clips), max_share)
    return without(parts, problems), tuple(problems.values())


def kind_of(source: str | os.PathLike) -> str:
    """What a source for `prepare` holds: "videos", "images" or "actions"."""
    if is_annotation(source):
        return "actions"
    return "images" if medium_of(source) is IMAGES else "videos"


def part_folders(source: str | os.PathLike) -> dict[str, Path]:
    """The parts that a folder is divided into by `FOLDERS`, each with a folder for each class; none if it is not."""
    names = [path.name for path in Path(source).glob("[!.]*") if any(each.is_dir() for each in path.glob("[!.]*"))]
    if "train" not in names or len(names) < 2 or not set(names) <= set(FOLDERS):
        return {}
    return {FOLDERS[name]: Path(source) / name for name in names}


def _drawn(sources: Mapping[str, Any], shares: Mapping[str, float]) -> list[str]:
    """The parts that are drawn from the clips to train on."""
    return [part for part, given in sources.items() if given is None and shares[part] > 0]


def draw_parts(
    items: Sequence[Any],
    sources: Mapping[str, Any],
    shares: Mapping[str, float],
    seed: int,
    draw: Callable[[Sequence[Any], float, int], tuple[list, list]],
) -> tuple[list, dict[str, list]]:
    """Draw the parts that have no source of their own, one after the other.

    Args:
        items: what to draw them from.
        sources: of each part, or `None`.
        shares: of all items, by part.
        seed: of the first draw; that of the next one is greater by 1.
        draw: takes items, a share of them and a seed, and gives the rest and the drawn ones.

    Returns:
        The rest, to train on, and the drawn parts.
    """
    parts, left = {}, 1.0
    for number, part in enumerate(_drawn(sources, shares)):
        items, parts[part] = draw(items, shares[part] / left, seed + number)
        left -= shares[part]
    return list(items), parts


def check_share(reasons: Sequence[str], total: int, max_share: float) -> None:
    """A ValueError if clips cannot be used, for these reasons, that are a greater share of all."""
    if len(reasons) > max_share * total:
        listed = "\n".join(reasons[:5])
        raise ValueError(
            f"{len(reasons)} of {total} clips cannot be used, more than a share of {max_share:g} "
            f"(--max-unreadable):\n{listed}"
        )


def without(parts: Mapping[str, Sequence[Clip]], problems: Mapping[Clip, str]) -> dict[str, list[Clip]]:
    """The clips of each part that can be used.

    Raises:
        ValueError: none of a part can.
    """
    kept = {part: [clip for clip in clips if clip not in problems] for part, clips in parts.items()}
    empty = [part for part, clips in kept.items() if parts[part] and not clips]
    if empty:
        listed = "\n".join(list(problems.values())[:5])
        raise ValueError(f"No clip that can be used is left for {', '.join(empty)}:\n{listed}")
    return kept
