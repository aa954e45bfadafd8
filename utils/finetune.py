#!/usr/bin/env python3
"""Fine-tune a video classifier on a folder of clips, with the Trainer of transformers.

Usage: python utils/finetune.py FOLDER --model MODEL --out DIRECTORY [--epochs N] [--batch-size N] [--learning-rate X]
       [--num-frames N] [--validation-share X] [--seed N] [--workers N] [--skip-unreadable]

FOLDER holds a folder of video files for each class, named as the class is. MODEL is a directory or the name of a
repository on the Hub, of any family that AutoModelForVideoClassification knows; it gets a new head for the folder's
classes, unless it has one for as many. A share of every class is kept from training to measure the accuracy after
every epoch. DIRECTORY receives model and video processor as `from_pretrained` takes them, with the names of the
classes, and `eval_results.json`.

Every file is decoded once before the training begins, so that a broken one does not stop it halfway. Needs accelerate:
`pip install 'vidformers[train]'`.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from vidformers import VideoDecodeError, decode_video
from vidformers.embed import VIDEO_SUFFIXES
from vidformers.inference import frames_of_a_clip
from vidformers.video import uniform_indices


@dataclass(frozen=True)
class Clip:
    """A video file and the number of its class."""

    path: Path
    label: int


class Clips(torch.utils.data.Dataset):
    """Clips as model input: frames spread evenly over each file, the same ones every time."""

    def __init__(self, clips: Sequence[Clip], processor, num_frames: int):
        self.clips, self.processor, self.num_frames = clips, processor, num_frames

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        clip = self.clips[index]
        frames = read_frames(clip.path, self.num_frames)
        inputs = self.processor(frames, do_sample_frames=False, return_tensors="pt")
        return {name: values[0] for name, values in inputs.items()} | {"labels": clip.label}


def read_frames(path: Path, num_frames: int) -> np.ndarray:
    """Frames spread evenly over a file: (num_frames, height, width, 3) uint8."""
    return decode_video(path, partial(uniform_indices, num_frames=num_frames))[0]


def find_clips(folder: Path) -> tuple[list[Clip], list[str]]:
    """The clips below a folder, and the names of its classes in the order of their numbers.

    Raises:
        ValueError: fewer than two classes, or a class with fewer than two video files.
    """
    names = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir()) if folder.is_dir() else []
    if len(names) < 2:
        found = f"only {names[0]}" if names else "none" if folder.is_dir() else "no such folder"
        raise ValueError(f"{folder}: expected a folder of video files for each of two classes or more, found {found}.")
    clips = []
    for label, name in enumerate(names):
        files = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
        clips += [Clip(file, label) for file in files]
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


def readable_clips(clips: Sequence[Clip], num_frames: int, skip: bool) -> list[Clip]:
    """The clips that can be decoded.

    Raises:
        ValueError: some cannot, and they are not to be skipped; it names them.
    """

    def problem(clip: Clip) -> str | None:
        try:
            read_frames(clip.path, num_frames)
        except VideoDecodeError as error:
            return str(error)
        return None

    with ThreadPoolExecutor() as pool:
        problems = list(pool.map(problem, clips))
    unreadable = "\n".join(text for text in problems if text)
    if unreadable and not skip:
        raise ValueError(f"These files cannot be decoded; remove them, or pass --skip-unreadable:\n{unreadable}")
    if unreadable:
        print(f"Left out:\n{unreadable}")
    return [clip for clip, text in zip(clips, problems) if text is None]


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


def load_model(directory: str, names: Sequence[str]) -> PreTrainedModel:
    """A directory's model with a head for these classes."""
    return AutoModelForVideoClassification.from_pretrained(
        directory,
        dtype=torch.float32,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        ignore_mismatched_sizes=True,
    )


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of clips whose class scores highest."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def prepare(options: argparse.Namespace) -> tuple[PreTrainedModel, Any, Clips, Clips]:
    """Model, video processor, clips to train on and clips to measure with, as the command's options say."""
    clips, names = find_clips(options.folder)
    set_seed(options.seed)
    model = load_model(options.model, names)
    processor = AutoVideoProcessor.from_pretrained(options.model)
    num_frames = options.num_frames or frames_of_a_clip(processor, model.config)
    clips = readable_clips(clips, num_frames, skip=options.skip_unreadable)
    check_counts(clips, names)
    training, validation = split(clips, options.validation_share, options.seed)
    print(f"{len(names)} classes, {len(training)} clips to train on, {len(validation)} to measure with")
    return model, processor, Clips(training, processor, num_frames), Clips(validation, processor, num_frames)


def train(
    model: PreTrainedModel, processor, training: Clips, validation: Clips, options: argparse.Namespace
) -> dict[str, float]:
    """Train, write the directory, and return the measures on the clips kept from training."""
    settings = TrainingArguments(
        output_dir=str(options.out),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,  # of all steps
        weight_decay=0.05,
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        dataloader_num_workers=options.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
        seed=options.seed,
    )
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=training,
        eval_dataset=validation,
        data_collator=default_data_collator,
        compute_metrics=accuracy,
    )
    trainer.train()
    measures = trainer.evaluate()
    trainer.save_model()
    processor.save_pretrained(options.out)
    trainer.save_metrics("eval", measures, combined=False)
    return measures


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of video files for each class")
    parser.add_argument("--model", required=True, help="directory or name on the Hub of the model to start from")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the clips")
    parser.add_argument("--batch-size", type=int, default=8, help="clips of a step")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="at its highest, after a tenth of the steps")
    parser.add_argument("--num-frames", type=int, help="frames to take of a clip; by default the model's number")
    parser.add_argument("--validation-share", type=float, default=0.2, help="share of every class to measure with")
    parser.add_argument("--seed", type=int, default=0, help="decides the split, the order and the new head")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode; 0 to decode in this one")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out files that cannot be decoded")
    options = parser.parse_args(arguments)
    try:
        prepared = prepare(options)
    except (OSError, ValueError) as error:
        parser.exit(1, f"{error}\n")
    measures = train(*prepared, options)
    print(f"accuracy {measures['eval_accuracy']:.1%} on the clips kept from training; wrote {options.out}")


if __name__ == "__main__":
    main()
