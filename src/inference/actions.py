"""Actions with a verb and a noun, annotated in long videos as EPIC-KITCHENS-100 does."""

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidformers.training.labels import NUMBERS, LabelSets, unify_labels

from .clips import videos_below
from .media import Clip


COLUMNS = ("video_id", *NUMBERS)


@dataclass(frozen=True)
class Action(Clip):
    """An action in a video, which is to be anticipated. `label` is its number.

    Attributes:
        start: its first frame.
        stop: its last frame.
        verb: number of its verb.
        noun: number of its noun.
    """

    start: int = 0
    stop: int = 0
    verb: int = 0
    noun: int = 0


def is_annotation(source: str | os.PathLike) -> bool:
    """Whether a source is a CSV file of annotated actions, by the names of its columns."""
    path = Path(source)
    if path.suffix != ".csv" or not path.is_file():
        return False
    with open(path, newline="", encoding="utf-8") as file:
        return {"video_id", "verb_class"} <= set(next(csv.reader(file), ()))


def read_annotations(path: str | os.PathLike) -> list[dict[str, str]]:
    """The rows of a CSV file of annotated actions, by the names of its columns.

    Raises:
        ValueError: there is no such file, or columns are missing.
    """
    if not is_annotation(path):
        raise ValueError(f"{path}: expected a CSV file of annotated actions, with the columns {', '.join(COLUMNS)}.")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in COLUMNS if rows and name not in rows[0]]
    if missing or not rows:
        raise ValueError(f"{path}: has no {'column ' + ', '.join(missing) if missing else 'row'}.")
    return rows


def hold_out(rows: Sequence[Mapping[str, Any]], share: float, seed: int) -> tuple[list, list]:
    """Rows to learn from, and those of about a share of the videos: at least one, and not all.

    Raises:
        ValueError: rows of a single video.
    """
    videos = list(dict.fromkeys(row["video_id"] for row in rows))
    if len(videos) < 2:
        raise ValueError(
            f"Actions are kept from training by whole videos, and there are none to keep: got {', '.join(videos)} "
            "alone. Give annotations to measure with."
        )
    order = np.random.default_rng(seed).permutation(len(videos))
    kept = {videos[index] for index in order[: min(max(1, round(share * len(videos))), len(videos) - 1)]}
    return [row for row in rows if row["video_id"] not in kept], [row for row in rows if row["video_id"] in kept]


def video_files(folder: str | os.PathLike) -> dict[str, Path]:
    """The video files in a folder and its subfolders, by name without suffix: the `video_id` of annotations."""
    return {path.stem: path for path in videos_below(folder)}


def actions_of(rows: Sequence[Mapping[str, Any]], sets: LabelSets, files: Mapping[str, Path]) -> list[Action]:
    """The actions of rows of a [`~vidformers.training.LabelSets`], with its numbers."""
    return [
        Action(
            f"{row['video_id']}, frames {row['start_frame']} to {row['stop_frame']}",
            sets.actions[row["verb_class"], row["noun_class"]],
            files[row["video_id"]],
            row["start_frame"],
            row["stop_frame"],
            sets.verbs[row["verb_class"]],
            sets.nouns[row["noun_class"]],
        )
        for row in rows
    ]


def find_actions(
    parts: Sequence[Sequence[Mapping[str, Any]]], folder: str | os.PathLike
) -> tuple[list[list[Action]], list[str], LabelSets]:
    """Actions to train on and to measure with, numbered by those to train on.

    Args:
        parts: rows to train on, then any number of lists of rows to measure with. Of these, actions that training
            lacks are left out.
        folder: where the videos are.

    Returns:
        The actions of each part; the names of the actions in the order of their numbers; and the numbers.

    Raises:
        ValueError: no video of a part is there.
    """
    files = video_files(folder)
    train, *others = parts
    sets = unify_labels(train, [], files)
    found = [sets.train, *(unify_labels(train, rows, files).val for rows in others)]
    for rows, actions in zip(parts, found, strict=True):
        if not actions:
            names = sorted({row["video_id"] for row in rows})[:3]
            unknown = "" if rows is train else ", or none of an action that is trained"
            raise ValueError(f"{folder}: holds no video of the annotations of {', '.join(names)}{unknown}.")
    texts: dict[tuple[int, int], str] = {}
    for row in sets.train:
        pair = row["verb_class"], row["noun_class"]
        texts.setdefault(pair, f"{row.get('verb', pair[0])} {row.get('noun', pair[1])}")
    names = [texts.get(pair, f"{pair[0]} {pair[1]}") for pair in sets.actions]
    if len(set(names)) < len(names):
        names = [f"{verb} {noun}" for verb, noun in sets.actions]
    return [actions_of(rows, sets, files) for rows in found], names, sets
