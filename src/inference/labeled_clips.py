"""Clips with labels: a folder for each class, a CSV file, or a data set of `datasets`."""

import csv
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidformers.progress import Progress
from vidformers.video import VideoDecodeError
from vidformers.video.processor import VideoProcessor

from .clips import VIDEO_SUFFIXES, read_clip
from .media import IMAGE_SUFFIXES, IMAGES, VIDEOS, Clip, Medium, Row


TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
SAVED_DATA_SETS = ("state.json", "dataset_dict.json")
"""Files by which a folder that `datasets` has saved is known."""


class Clips(torch.utils.data.Dataset):
    """Clips as model input: the same number of frames of every file, the same ones every time."""

    def __init__(self, clips: Sequence[Clip], processor: VideoProcessor, num_frames: int):
        self.clips, self.processor, self.num_frames = clips, processor, num_frames

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        clip = self.clips[index]
        frames, _ = read_clip(clip.open(), self.processor, self.num_frames, exactly=True)
        inputs = self.processor(frames, do_sample_frames=False, return_tensors="pt")
        return {name: values[0] for name, values in inputs.items()} | {"labels": clip.label}


def find_clips(source: str | os.PathLike, medium: Medium = VIDEOS) -> tuple[list[Clip], list[str]]:
    """The clips of a source, and the names of their classes in the order of their numbers.

    Args:
        source: a folder that holds a folder of files for each class; a table of two columns, path and label, in which
            paths are relative to its own folder; or a data set of `datasets`: a folder that holds a saved one, or
            "NAME" or "NAME:SPLIT" (the split "train" by default).
        medium: what to look for.

    Raises:
        ValueError: fewer than two classes, or a table or data set without clips or labels.
        ModuleNotFoundError: `datasets` is needed and not installed.
    """
    path = Path(source)
    if path.is_dir() and not _is_saved(path):
        return _in_folders(path, medium)
    if path.suffix in TABLE_SUFFIXES:
        return _in_table(path, medium)
    return _in_data_set(str(source), medium)


def medium_of(source: str | os.PathLike) -> Medium:
    """What a source for `find_clips` holds: images, if these are all that it holds, and else videos.

    Raises:
        ModuleNotFoundError: `datasets` is needed and not installed.
    """
    path = Path(source)
    if path.is_dir() and not _is_saved(path):
        suffixes = {file.suffix.lower() for file in path.rglob("*")}
    elif path.suffix in TABLE_SUFFIXES:
        rows, _, files, _ = _rows(path)
        suffixes = {Path(row[files].strip()).suffix.lower() for row in rows if len(row) > files}
    else:
        kinds = {type(feature).__name__ for feature in _data_set(str(source)).features.values()}
        return IMAGES if IMAGES.feature in kinds and VIDEOS.feature not in kinds else VIDEOS
    return IMAGES if suffixes & IMAGE_SUFFIXES and not suffixes & VIDEO_SUFFIXES else VIDEOS


def find_unlabeled(source: str | os.PathLike, medium: Medium = VIDEOS) -> list[Clip]:
    """The videos, or images, of a source, whatever their labels.

    Args:
        source: a folder, which is searched with all that is below it, or which holds a saved data set of `datasets`; a
            table as for `find_clips`, or with a path alone in every line; or the name of a data set of `datasets`.
        medium: what to look for.

    Returns:
        Clips of one class.

    Raises:
        ValueError: none was found, or a table or data set has no column of them.
        ModuleNotFoundError: `datasets` is needed and not installed.
    """
    path = Path(source)
    if path.is_dir() and not _is_saved(path):
        found = medium.clips_below(path)
        if not found:
            raise ValueError(f"{path}: holds no {medium.called} (looked for {' '.join(sorted(medium.suffixes))}).")
    elif path.suffix in TABLE_SUFFIXES:
        rows, _, column, _ = _rows(path)
        found = [medium.kind(str(file), 0, file) for row in rows for file in [path.parent / row[column].strip()]]
        if not found:
            raise ValueError(f"{path}: expected a path in every line, got no line.")
    else:
        rows, column = _encoded(str(source), medium)
        rows = rows.select_columns([column])
        found = [medium.kind(f"{source}[{index}]", 0, Row(rows, index, column)) for index in range(len(rows))]
    return found


def _is_saved(folder: Path) -> bool:
    """Whether `datasets` has saved a data set there."""
    return any((folder / name).is_file() for name in SAVED_DATA_SETS)


def _in_folders(folder: Path, medium: Medium) -> tuple[list[Clip], list[str]]:
    names = sorted(path.name for path in folder.glob("[!.]*") if path.is_dir())
    if len(names) < 2:
        found = f"only {names[0]}" if names else "none"
        raise ValueError(
            f"{folder}: expected a folder of {medium.called} for each of two classes or more, found {found}."
        )
    return [clip for label, name in enumerate(names) for clip in medium.clips_below(folder / name, label)], names


def _in_table(path: Path, medium: Medium) -> tuple[list[Clip], list[str]]:
    """Clips of a CSV file with a heading, or of two columns without one as the originals' lists have."""
    rows, delimiter, videos, labels = _rows(path)
    if labels is None:
        raise ValueError(f"{path}: expected a column `label` beside that of the paths, and its heading names none.")
    wrong = next((row for row in rows if len(row) <= max(videos, labels)), None)
    if not rows or wrong is not None:
        came = f"the line {delimiter.join(wrong)!r}" if wrong else "no line"
        raise ValueError(f"{path}: expected a path and a label in every line, got {came}.")
    names = _in_order({row[labels].strip() for row in rows})
    numbers = {name: number for number, name in enumerate(names)}
    files = [path.parent / row[videos].strip() for row in rows]
    clips = [medium.kind(str(file), numbers[row[labels].strip()], file) for file, row in zip(files, rows, strict=True)]
    return clips, names


def _rows(path: Path) -> tuple[list[list[str]], str, int, int | None]:
    """The rows of a table below its heading, what stands between cells, and the numbers of its two columns."""
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    with open(path, newline="", encoding="utf-8") as file:
        lines = [line for line in file if line.strip()]
    delimiter = next((each for each in (",", "\t", ";", " ") if lines and each in lines[0]), ",")
    rows = (
        list(map(_cells_of_the_originals, lines)) if delimiter == " " else list(csv.reader(lines, delimiter=delimiter))
    )
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    videos = next((heading.index(name) for name in ("path", "video", "image", "file") if name in heading), 0)
    has_heading = "label" in heading or "path" in heading
    labels = heading.index("label") if "label" in heading else None if has_heading else 1
    return rows[has_heading:], delimiter, videos, labels


def _cells_of_the_originals(line: str) -> list[str]:
    """A path, which may hold spaces, and the number after the last space, if there is one."""
    line = line.strip()
    return [line] if Path(line).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES else line.rsplit(maxsplit=1)


def _in_order(names: set[str]) -> list[str]:
    """Names of classes: by number where all are numbers, else by alphabet."""
    return sorted(names, key=int) if all(name.isdigit() for name in names) else sorted(names)


def _in_data_set(name: str, medium: Medium) -> tuple[list[Clip], list[str]]:
    rows, column = _encoded(name, medium)
    import datasets

    features = rows.features
    label = _column(features, datasets.ClassLabel, ("label", "labels"))
    if label is None:
        raise ValueError(f"{name}: finds no column of labels among {', '.join(features)}.")
    values = rows[label][:]
    if isinstance(features[label], datasets.ClassLabel):
        names, numbers = list(features[label].names), values
    else:
        names = _in_order({str(value) for value in values})
        numbers = [names.index(str(value)) for value in values]
    files = rows.select_columns([column])
    return [medium.kind(f"{name}[{i}]", int(n), Row(files, i, column)) for i, n in enumerate(numbers)], names


def _encoded(name: str, medium: Medium) -> tuple[Any, str]:
    """A data set whose videos or images aren't decoded, and the column that holds them."""
    rows = _data_set(name)
    import datasets

    kind = getattr(datasets, medium.feature)
    column = _column(rows.features, kind, medium.columns)
    if column is None:
        raise ValueError(f"{name}: finds no column of {medium.columns[0]}s among {', '.join(rows.features)}.")
    if isinstance(rows.features[column], kind):
        rows = rows.cast_column(column, kind(decode=False))
    return rows, column


def _data_set(name: str) -> Any:
    """A data set by its name, or out of the folder that holds it."""
    if find_spec("datasets") is None:
        place = "a saved data set" if Path(name).is_dir() else "the name of a data set"
        raise ModuleNotFoundError(
            f"{name}: there is no such folder or file. To take it for {place}, install `pip install datasets`.",
            name="datasets",
        )
    import datasets

    if Path(name).is_dir():
        rows = datasets.load_from_disk(name)
        return rows["train"] if isinstance(rows, datasets.DatasetDict) else rows
    repo, _, split = name.partition(":")
    return datasets.load_dataset(repo, split=split or "train")


def _column(features: Any, kind: type, names: Sequence[str]) -> str | None:
    """The first column of a type, or of one of some names."""
    of_kind = [name for name, feature in features.items() if isinstance(feature, kind)]
    return next(iter([*of_kind, *(name for name in names if name in features)]), None)


def relabeled(clips: Sequence[Clip], names: Sequence[str], classes: Sequence[str]) -> list[Clip]:
    """Clips with the numbers that other clips' classes have.

    Args:
        clips: with numbers of `names`.
        names: their classes.
        classes: the classes to number by.

    Raises:
        ValueError: a class is not among those.
    """
    unknown = sorted({names[clip.label] for clip in clips} - set(classes))
    if unknown:
        raise ValueError(
            f"No clips to train on have the classes {', '.join(unknown)}, which others are measured with."
        )
    return [replace(clip, label=classes.index(names[clip.label])) for clip in clips]


def check_counts(clips: Sequence[Clip], names: Sequence[str], fewest: int, medium: Medium = VIDEOS) -> None:
    """A ValueError unless every class has so many clips."""
    counts = np.bincount([clip.label for clip in clips], minlength=len(names))
    few = [f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < fewest]
    if few:
        listed = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        purposes = "to train on", "one to train on and one to measure with", "for training, choice and test one each"
        raise ValueError(
            f"Expected at least {fewest} {medium.called} of every class, {purposes[fewest - 1]}; too few of {listed}. "
            f"Folders are searched for {' '.join(sorted(medium.suffixes))}."
        )


def unreadable(clips: Sequence[Clip], progress: Progress) -> dict[Clip, str]:
    """Of the clips those that cannot be opened, and why."""

    def problem(clip: Clip) -> str | None:
        try:
            clip.check()
        except (VideoDecodeError, OSError) as error:
            return str(error)
        return None

    def checked() -> Iterator[tuple[Clip, str | None]]:
        with ThreadPoolExecutor() as pool:
            for done, pair in enumerate(zip(clips, pool.map(problem, clips), strict=True), start=1):
                progress("checking files", done, len(clips))
                yield pair

    return {clip: text for clip, text in checked() if text}


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
