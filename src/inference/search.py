"""From a vector to the parts of videos that are nearest to it: rows of a table, joined to spans of time."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from vidformers.progress import Progress, no_progress
from vidformers.video.sample import TICK

from .store import Hit, Store


ROWS_OF_A_SPAN = 20
"""Rows that are looked at for each span that is wanted."""
SHARE_OF_THE_BEST = 0.9
"""Windows that overlap a better one belong to its span from this share of its score."""
INDEX_FROM_ROWS = 250_000
"""So many rows are searched by an index, unless a search says otherwise."""


@dataclass(frozen=True)
class Span:
    """A part of a video that a search found.

    Attributes:
        video: absolute path of its file.
        score: of its best window, the cosine with the query.
        start_seconds, end_seconds: from the start of its first window to the end of its last one.
        windows: the numbers of its windows.
        frame_indices: the frames that they hold, ascending.
    """

    video: str
    score: float
    start_seconds: float
    end_seconds: float
    windows: tuple[int, ...]
    frame_indices: tuple[int, ...]


def find_spans(
    store: Store,
    vector: torch.Tensor,
    top: int = 5,
    where: str | None = None,
    index: bool | None = None,
    progress: Progress = no_progress,
) -> list[Span]:
    """The parts of videos that are nearest to a vector.

    Args:
        store: a table with rows.
        vector: (D,), of whatever length.
        top: how many at most.
        where: as for [`~inference.Store.nearest`].
        index: look in the index, which is made if there is none; or compare all rows. `None` takes an index from
            `INDEX_FROM_ROWS` rows on.
        progress: called with an activity and how much of it is done.

    Returns:
        Spans, the best first; fewer than `top` where there are no more.

    Raises:
        ValueError: the condition is none that lancedb takes, or an index is asked for and there are too few rows.
    """
    rows = store.count(where)
    if index is None:
        index = store.count() >= INDEX_FROM_ROWS
    if index and not store.has_index():
        progress("making an index", 0, 1)
        store.make_index()
        progress("making an index", 1, 1)
    limit = ROWS_OF_A_SPAN * top
    while True:
        hits = store.nearest(vector, limit, where, index=index)
        spans = merge_hits(hits)
        if len(spans) >= top or len(hits) < limit or limit >= rows:
            return spans[:top]
        limit *= 4


def merge_hits(hits: Iterable[Hit]) -> list[Span]:
    """Join windows of a video that overlap or touch, so that what happens once is found once.

    A window belongs to a span that it overlaps if its score is at least `SHARE_OF_THE_BEST` of that of the span's best
    window; otherwise it is left out. A window that only touches a span joins it under the same condition. Every other
    window begins a span. Spans of a video never overlap.

    Args:
        hits: the best first.

    Returns:
        Spans, the best first.
    """
    by_video: dict[str, list[_Group]] = {}
    for hit in hits:
        groups = by_video.setdefault(hit.video, [])
        near = [(group, group.gap(hit)) for group in groups]
        if not all(group.takes(hit) for group, gap in near if gap < -TICK):
            continue
        joined = [group for group, gap in near if gap <= TICK and group.takes(hit)]
        if not joined:
            joined = [_Group(hit, hit.start_seconds, hit.end_seconds, [])]
            groups += joined
        joined[0].hits.append(hit)
        for other in joined[1:]:
            joined[0].hits += other.hits
            groups.remove(other)
        joined[0].start = min(hit.start_seconds, *(group.start for group in joined))
        joined[0].end = max(hit.end_seconds, *(group.end for group in joined))
    spans = [group.span for groups in by_video.values() for group in groups]
    return sorted(spans, key=lambda span: -span.score)


@dataclass(eq=False)
class _Group:
    """Windows of one video that make a span, while they are gathered."""

    best: Hit
    start: float
    end: float
    hits: list[Hit]

    def gap(self, hit: Hit) -> float:
        """Seconds between the span and a window; below 0 where they overlap."""
        return max(hit.start_seconds - self.end, self.start - hit.end_seconds)

    def takes(self, hit: Hit) -> bool:
        """Whether a window is good enough for the span."""
        return hit.score >= self.best.score - (1 - SHARE_OF_THE_BEST) * abs(self.best.score)

    @property
    def span(self) -> Span:
        """What has been gathered."""
        frames = {index for hit in self.hits for index in hit.frame_indices}
        windows = tuple(sorted(hit.window for hit in self.hits))
        times = self.start, self.end
        return Span(self.best.video, self.best.score, *times, windows, tuple(sorted(frames)))
