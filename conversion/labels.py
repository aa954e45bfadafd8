"""Names of classes, and classifiers of a part of them: the rows of a head that are kept."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .found import Found
from .ops import ConversionError
from .sources import listed


Labels = Sequence[str] | str | os.PathLike
"""Names of classes in order, or a file of them: JSON, or text with one a line."""


def read_labels(path: str | os.PathLike) -> list[str]:
    """Class names in order, from a JSON list, a JSON dictionary (number → name or name → number) or lines of text.

    Raises:
        ValueError: numbers with a gap, or repeated ones.
    """
    path = Path(path)
    text = path.read_text("utf-8")
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    names = json.loads(text)
    if isinstance(names, list):
        return [str(name) for name in names]
    if not all(key.isdigit() for key in names):
        names = {number: name for name, number in names.items()}
    by_number = {int(number): str(name) for number, name in names.items()}
    if sorted(by_number) != list(range(len(by_number))):
        raise ValueError(f"{path}: class numbers must run from 0 without gaps or repeats.")
    return [by_number[number] for number in range(len(by_number))]


def names_of(labels: Labels | None) -> list[str] | None:
    """Class names as a list, read if they stand in a file.

    Raises:
        ConversionError: the file can't be read.
    """
    if labels is None:
        return None
    try:
        return read_labels(labels) if isinstance(labels, (str, os.PathLike)) else [str(name) for name in labels]
    except (OSError, ValueError) as error:
        raise ConversionError(f"{labels}: no readable names of classes ({error}).") from error


def rows_of(kept: Sequence[str], labels: Sequence[str] | None) -> list[int]:
    """The rows of a head that belong to some of its classes, in their order.

    Raises:
        ConversionError: the names of all classes are not given, or lack some of these.
    """
    if labels is None:
        raise ConversionError("keep_labels gives the names of classes to keep; give those of all as labels.")
    rows = {name: row for row, name in reversed(list(enumerate(labels)))}
    if unknown := [repr(name) for name in kept if name not in rows]:
        raise ConversionError(f"keep_labels: not among the {len(labels)} labels: {listed(unknown)}.")
    if len(set(kept)) < len(kept) or not kept:
        raise ConversionError("keep_labels must hold at least one name, and each once.")
    return [rows[name] for name in kept]


def keep_rows(found: Found, rows: Sequence[int], count: int | None = None) -> Found:
    """What was found in files, with some rows of the classifier's head, which has `count` if that is given.

    Raises:
        ConversionError: the form has no head, or one of another number of rows.
    """
    form = found.form
    if not form.label_rows:
        raise ConversionError(f"{found.path}: {form.title} has no classifier of which labels could be kept.")
    shapes, parts = found.shapes, dict(found)
    for name in form.label_rows:
        key, bare = form.split(name)
        if name in shapes and count is not None and shapes[name][0] != count:
            raise ConversionError(f"{found.path}: {count} labels were given, but {name} has {shapes[name][0]} rows.")
        if bare in parts[key].names:
            parts[key] = replace(parts[key], rows={**parts[key].rows, parts[key].names[bare]: rows})
    return Found(form, parts, found.left_out, found.strays)
