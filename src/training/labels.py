"""Labels of actions that have a verb and a noun, as EPIC-KITCHENS-100 annotates them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils import ModelOutput


NUMBERS = ("start_frame", "stop_frame", "verb_class", "noun_class")
Row = Mapping[str, Any]


@dataclass
class LabelSets(ModelOutput):
    """What [`unify_labels`] makes of annotations.

    Args:
        verbs: class number of each verb of the training set, by its number in the annotations.
        nouns: likewise.
        actions: class number of each pair (verb, noun) of the training set, by their numbers in the annotations.
        val_verbs: class numbers that occur in validation.
        val_nouns: likewise.
        val_actions: likewise.
        train: rows of the training set, by video and start.
        val: rows of the validation set whose actions training has, likewise.
    """

    verbs: dict[int, int] | None = None
    nouns: dict[int, int] | None = None
    actions: dict[tuple[int, int], int] | None = None
    val_verbs: set[int] | None = None
    val_nouns: set[int] | None = None
    val_actions: set[int] | None = None
    train: list[dict[str, Any]] | None = None
    val: list[dict[str, Any]] | None = None


def unify_labels(train: Sequence[Row], val: Sequence[Row], videos: Collection[str] | None = None) -> LabelSets:
    """Number the classes of a training set, and leave out what can't be learned or seen.

    Args:
        train: rows of the annotations by the names of their columns: `video_id`, `start_frame`, `stop_frame`,
            `verb_class` and `noun_class`.
        val: likewise. Rows whose action never occurs in training are left out, as in the original, so that its recall
            isn't over the whole set.
        videos: the `video_id` of those that there are; by default all. Rows of others are left out, but their classes
            count.

    Returns:
        [`LabelSets`]. Classes are numbered in ascending order. The original's numbers of actions follow the order of a
        Python set, and the heads that it published need those.

    Raises:
        ValueError: no row to train on, a column is missing, or no number where one belongs.

    Source: facebookresearch/vjepa2 at c2963a47, `evals/action_anticipation_frozen/epickitchens.py`.
    """
    train, val = ([_checked(row) for row in rows] for rows in (train, val))
    if not train:
        raise ValueError("The training set has no annotation, and so no class.")
    pairs = sorted({_pair(row) for row in train})
    verbs, nouns = ({raw: number for number, raw in enumerate(sorted(set(raws)))} for raws in zip(*pairs, strict=True))
    actions = {pair: number for number, pair in enumerate(pairs)}
    val = [row for row in val if _pair(row) in actions]
    return LabelSets(
        verbs=verbs,
        nouns=nouns,
        actions=actions,
        val_verbs={verbs[row["verb_class"]] for row in val},
        val_nouns={nouns[row["noun_class"]] for row in val},
        val_actions={actions[_pair(row)] for row in val},
        train=_ordered(train, videos),
        val=_ordered(val, videos),
    )


def _checked(row: Row) -> dict[str, Any]:
    """A row with its numbers as integers."""
    missing = [name for name in ("video_id", *NUMBERS) if name not in row]
    if missing:
        raise ValueError(f"An annotation lacks {', '.join(missing)}; it has {', '.join(map(str, row))}.")
    try:
        return {**row, **{name: int(row[name]) for name in NUMBERS}}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected whole numbers in {', '.join(NUMBERS)} of an annotation, got {dict(row)}."
        ) from error


def _pair(row: Row) -> tuple[int, int]:
    return row["verb_class"], row["noun_class"]


def _ordered(rows: Sequence[dict[str, Any]], videos: Collection[str] | None) -> list[dict[str, Any]]:
    """Rows of the videos that there are: videos as they first occur, the rows of each by start."""
    places: dict[str, int] = {}
    for row in rows:
        places.setdefault(row["video_id"], len(places))
    kept = [row for row in rows if videos is None or row["video_id"] in videos]
    return sorted(kept, key=lambda row: (places[row["video_id"]], row["start_frame"]))
