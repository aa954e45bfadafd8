"""Rows that a search found, joined to spans."""

import math

import pytest

from vidformers.inference.search import Span, merge_hits
from vidformers.inference.store import Hit


def hit(score: float, start: float, end: float, video: str = "a", window: int | None = None) -> Hit:
    window = int(start) if window is None else window
    return Hit(score, video, window, start, end, (window * 2, window * 2 + 1, window * 2 + 2))


def times(spans: list[Span]) -> list[tuple]:
    return [(span.video, span.start_seconds, span.end_seconds, span.score) for span in spans]


def test_windows_that_overlap_become_one_span_with_the_best_score():
    (span,) = merge_hits([hit(0.8, 2, 6), hit(0.76, 4, 8), hit(0.74, 0, 4)])
    assert times([span]) == [("a", 0, 8, 0.8)]
    assert span.windows == (0, 2, 4) and span.frame_indices == (0, 1, 2, 4, 5, 6, 8, 9, 10)


def test_frames_of_overlapping_windows_are_there_once():
    (span,) = merge_hits([hit(0.8, 2, 6), hit(0.8, 3, 7)])
    assert span.frame_indices == (4, 5, 6, 7, 8)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.73, [("a", 0, 6, 0.8)]),
        # Less than nine tenths: a neighbor that sees a part of the same, and is no find of its own.
        (0.71, [("a", 0, 4, 0.8)]),
    ],
)
def test_a_worse_neighbor_that_overlaps_is_left_out(score, expected):
    assert times(merge_hits([hit(0.8, 0, 4), hit(score, 2, 6)])) == expected


def test_windows_that_touch():
    """A worse one is a span of its own, since it shares nothing with its neighbor."""
    assert times(merge_hits([hit(0.8, 0, 4), hit(0.75, 4, 8)])) == [("a", 0, 8, 0.8)]
    assert times(merge_hits([hit(0.8, 4, 8), hit(0.5, 0, 4)])) == [("a", 4, 8, 0.8), ("a", 0, 4, 0.5)]


def test_a_window_between_two_spans_joins_them():
    hits = [hit(0.8, 0, 4), hit(0.79, 6, 10), hit(0.78, 3, 7), hit(0.5, 20, 24)]
    assert times(merge_hits(hits)) == [("a", 0, 10, 0.8), ("a", 20, 24, 0.5)]


def test_a_window_good_enough_for_one_of_two_spans_it_overlaps_joins_neither():
    hits = [hit(0.9, 0, 4), hit(0.7, 6, 10), hit(0.69, 3, 7)]
    assert times(merge_hits(hits)) == [("a", 0, 4, 0.9), ("a", 6, 10, 0.7)]


def test_a_window_that_overlaps_one_span_and_touches_a_better_one():
    hits = [hit(0.9, 0, 4), hit(0.7, 6, 10), hit(0.69, 4, 8)]
    assert times(merge_hits(hits)) == [("a", 0, 4, 0.9), ("a", 4, 10, 0.7)]


def test_videos_stay_apart_and_scores_decide_the_order():
    hits = [
        hit(0.8, 0, 4, "a"),
        hit(0.79, 2, 6, "b"),
        hit(0.78, 2, 6, "a"),
        hit(0.3, 50, 54, "a"),
        hit(-0.1, 30, 34, "b"),
    ]
    expected = [("a", 0, 6, 0.8), ("b", 2, 6, 0.79), ("a", 50, 54, 0.3), ("b", 30, 34, -0.1)]
    assert times(merge_hits(hits)) == expected


def test_scores_below_zero():
    assert times(merge_hits([hit(-0.5, 0, 4), hit(-0.54, 2, 6), hit(-0.6, 3, 7)])) == [("a", 0, 6, -0.5)]


def test_windows_without_times_are_spans_of_their_own():
    spans = merge_hits([hit(0.8, math.nan, math.nan, window=0), hit(0.8, math.nan, math.nan, window=1)])
    assert [span.windows for span in spans] == [(0,), (1,)]


def test_nothing_is_found_in_nothing():
    assert merge_hits([]) == []
