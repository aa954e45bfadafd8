"""A classifier from a folder of clips, by the Trainer of transformers: what the command `vidformers finetune` does.

Needs accelerate: `pip install 'vidformers[train]'`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForVideoClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from vidformers.inference.clips import VIDEO_SUFFIXES, frames_of_a_clip, read_clip, videos_below
from vidformers.inference.directory import Directory
from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.video import VideoDecodeError
from vidformers.video.processor import VideoProcessor


@dataclass(frozen=True)
class Clip:
    """A video file and the number of its class."""

    path: Path
    label: int


class Clips(torch.utils.data.Dataset):
    """Clips as model input: the same number of frames of every file, the same ones every time."""

    def __init__(self, clips: Sequence[Clip], processor: VideoProcessor, num_frames: int):
        self.clips, self.processor, self.num_frames = clips, processor, num_frames

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        clip = self.clips[index]
        frames, _ = read_clip(clip.path, self.processor, self.num_frames, exactly=True)
        inputs = self.processor(frames, do_sample_frames=False, return_tensors="pt")
        return {name: values[0] for name, values in inputs.items()} | {"labels": clip.label}


@dataclass(frozen=True)
class Task:
    """What a training needs.

    Attributes:
        model: with a head for the classes.
        processor: its video processor.
        classes: names of the classes in the order of their numbers.
        training: clips to train on.
        validation: clips to measure with.
        unreadable: why files were left out, a line each.
    """

    model: VideoPreTrainedModel
    processor: VideoProcessor
    classes: tuple[str, ...]
    training: Clips
    validation: Clips
    unreadable: tuple[str, ...]


def prepare(
    folder: str | os.PathLike,
    model: str | os.PathLike,
    *,
    num_frames: int | None = None,
    validation_share: float = 0.2,
    seed: int = 0,
    skip_unreadable: bool = False,
) -> Task:
    """Load a model with a new head, and decode every clip once, so that a broken one does not stop the training.

    Args:
        folder: holds a folder of video files for each class, named as the class is.
        model: a directory or the name of a repository on the Hub. Its head is kept if it has as many classes.
        num_frames: frames to take of a clip; by default the model's number.
        validation_share: share of every class to measure with; at least one clip.
        seed: decides the split and the new head.
        skip_unreadable: leave out files that cannot be decoded.

    Returns:
        The task for [`~vidformers.commands.finetune.train`].

    Raises:
        ModuleNotFoundError: accelerate is not installed.
        OSError: there is no such model.
        ValueError: the model is no classifier, a class has too few clips, or some cannot be decoded.
    """
    if find_spec("accelerate") is None:
        raise ModuleNotFoundError(
            "Fine-tuning runs on the Trainer of transformers, which needs accelerate. Install it with "
            "`pip install 'vidformers[train]'`.",
            name="accelerate",
        )
    clips, classes = find_clips(Path(folder))
    set_seed(seed)
    classifier = load_classifier(model, classes)
    processor = AutoVideoProcessor.from_pretrained(model)
    num_frames = num_frames or frames_of_a_clip(classifier, processor)
    problems = unreadable(clips, processor, num_frames)
    if problems and not skip_unreadable:
        listed = "\n".join(problems.values())
        raise ValueError(f"These files cannot be decoded; remove them, or pass --skip-unreadable:\n{listed}")
    clips = [clip for clip in clips if clip not in problems]
    check_counts(clips, classes)
    parts = (Clips(part, processor, num_frames) for part in split(clips, validation_share, seed))
    return Task(classifier, processor, tuple(classes), *parts, tuple(problems.values()))


def find_clips(folder: Path) -> tuple[list[Clip], list[str]]:
    """The clips below a folder, and the names of its classes in the order of their numbers.

    Raises:
        ValueError: fewer than two classes, or a class with fewer than two video files.
    """
    names = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir()) if folder.is_dir() else []
    if len(names) < 2:
        found = f"only {names[0]}" if names else "none" if folder.is_dir() else "no such folder"
        raise ValueError(f"{folder}: expected a folder of video files for each of two classes or more, found {found}.")
    clips = [Clip(file, label) for label, name in enumerate(names) for file in videos_below(folder / name)]
    check_counts(clips, names)
    return clips, names


def check_counts(clips: Sequence[Clip], names: Sequence[str]) -> None:
    """A ValueError unless every class has a clip to train on and one to measure with."""
    counts = np.bincount([clip.label for clip in clips], minlength=len(names))
    few = [f"{name} ({count})" for name, count in zip(names, counts) if count < 2]
    if few:
        raise ValueError(
            f"Expected at least two video files of every class, one to train on and one to measure with; too few of "
            f"{', '.join(few)}. Looked for {' '.join(sorted(VIDEO_SUFFIXES))}."
        )


def load_classifier(directory: str | os.PathLike, classes: Sequence[str]) -> VideoPreTrainedModel:
    """A directory's model with a head for these classes.

    Raises:
        ValueError: no class of the family classifies videos.
    """
    opened = Directory.open(directory)
    if "AutoModelForVideoClassification" not in opened.record.auto_models:
        raise ValueError(f"{directory}: {opened.model_class.__name__} has no counterpart that classifies videos.")
    return AutoModelForVideoClassification.from_pretrained(
        directory,
        dtype=torch.float32,
        id2label=dict(enumerate(classes)),
        label2id={name: number for number, name in enumerate(classes)},
        ignore_mismatched_sizes=True,
    )


def unreadable(clips: Sequence[Clip], processor: VideoProcessor, num_frames: int) -> dict[Clip, str]:
    """Of the clips those that cannot be decoded, and why."""

    def problem(clip: Clip) -> str | None:
        try:
            read_clip(clip.path, processor, num_frames, exactly=True)
        except VideoDecodeError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        return {clip: text for clip, text in zip(clips, pool.map(problem, clips)) if text}


def split(clips: Sequence[Clip], share: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """Clips to train on and clips to measure with: of every class about that share of them, at least one each."""
    rng = np.random.default_rng(seed)
    training, validation = [], []
    for label in sorted({clip.label for clip in clips}):
        of_class = [clip for clip in clips if clip.label == label]
        order = rng.permutation(len(of_class))
        count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
        validation += [of_class[index] for index in order[:count]]
        training += [of_class[index] for index in order[count:]]
    return training, validation


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of clips whose class scores highest."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def train(
    task: Task,
    out: str | os.PathLike,
    *,
    epochs: int = 10,
    batch_size: int = 8,
    learning_rate: float = 5e-5,
    seed: int = 0,
    workers: int = 2,
) -> dict[str, float]:
    """Train a task's model, and write a directory for `from_pretrained` with `eval_results.json`.

    Args:
        task: from [`~vidformers.commands.finetune.prepare`].
        out: the directory.
        epochs: passes over the clips; the accuracy is measured after each.
        batch_size: clips of a step.
        learning_rate: at its highest, after a tenth of the steps.
        seed: decides the order of the clips.
        workers: processes that decode; 0 to decode in this one.

    Returns:
        The measures on the clips kept from training, "eval_accuracy" among them.
    """
    settings = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # of all steps
        weight_decay=0.05,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        dataloader_num_workers=workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        seed=seed,
    )
    trainer = Trainer(
        model=task.model,
        args=settings,
        train_dataset=task.training,
        eval_dataset=task.validation,
        data_collator=default_data_collator,
        compute_metrics=accuracy,
    )
    trainer.train()
    measures = trainer.evaluate()
    trainer.save_model()
    task.processor.save_pretrained(out)
    trainer.save_metrics("eval", measures, combined=False)
    return measures
