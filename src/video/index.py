"""Which frames a file holds, read off its packets without decoding them, where packets can be trusted to tell."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from struct import Struct
from typing import Any, NamedTuple

import numpy as np


# Decoders whose state is wholly reset at a key frame. All others (GIF, for one) are decoded from the start.
SEEKABLE_CODECS = frozenset(
    "h264 hevc vp9 av1 mpeg4 mpeg1video mpeg2video mjpeg prores dnxhd ffv1 huffyuv rawvideo png".split()
)
# Codecs whose pictures may come in another order than they are shown.
_REORDERING_CODECS = frozenset("h264 hevc mpeg4 mpeg1video mpeg2video".split())
# VP8 files hold packets that are decoded and never shown, without a mark.
_UNCOUNTABLE_CODECS = frozenset({"vp8"})
# AVI stores no presentation times: where frames are reordered, FFmpeg reports those of the decoding order.
_UNTIMED_FORMATS = frozenset({"avi"})
# Formats of transmissions, in which a picture may be lacking without a mark.
_LOSSY_FORMATS = frozenset({"mpegts", "mpeg"})
# A seek empties the decoder's pipeline: below this many saved packets, reading on is as fast.
_MIN_SAVED_PACKETS = 4
# The farthest that a picture is decoded before it is shown, in the codecs that reorder.
MOST_REORDERED = 17
# Packets of MPEG-4 shorter than this may be marks that nothing changed ("not coded"), which show no picture.
_SMALLEST_MPEG4_PICTURE = 32


class Packets(NamedTuple):
    """What the index needs of encoded pictures, one entry each: times in the stream's time base, places in bytes."""

    pts: tuple[int | None, ...]
    dts: tuple[int | None, ...]
    duration: tuple[int | None, ...]
    is_keyframe: tuple[bool, ...]
    is_discarded: tuple[bool, ...]
    is_intact: tuple[bool, ...]
    place: tuple[int | None, ...]


def promises_picture(codec: str, extradata: bytes | None) -> Callable[[Any], bool]:
    """A test of packets: whether one is surely decoded to one picture, as far as its first marks tell.

    Args:
        codec: FFmpeg's name of it.
        extradata: the codec's header.
    """
    if codec in ("h264", "hevc"):
        return _holds_slice(codec, extradata or b"")
    like_the_first = {"mjpeg": _like_the_first_jpeg, "mpeg4": _like_the_first_mpeg4}.get(codec)
    mark = like_the_first() if like_the_first else _MARKS.get(codec)
    return (lambda packet: mark(memoryview(packet))) if mark else lambda packet: True


def _holds_slice(codec: str, extradata: bytes) -> Callable[[Any], bool]:
    """Whether the units of a packet fill it exactly, and one of them is a slice."""
    in_lengths = extradata[:1] == b"\1"
    if codec == "h264":
        size = (extradata[4] & 3) + 1 if in_lengths and len(extradata) > 4 else 4
        is_slice = [1 <= first & 31 <= 5 and first < 128 for first in range(256)]
    else:
        size = (extradata[21] & 3) + 1 if in_lengths and len(extradata) > 21 else 4
        is_slice = [first >> 1 < 32 and first < 128 for first in range(256)]

    form = {1: Struct(">BB"), 2: Struct(">HB"), 4: Struct(">IB")}.get(size)
    if form is None:
        return lambda packet: False
    read = form.unpack_from

    def counted(packet: Any) -> bool:  # runs for every packet: no view of its bytes, which would cost as much again
        position, end, found = 0, packet.size, False
        last = end - size
        while position < last:
            length, first = read(packet, position)
            position += size + length
            if is_slice[first]:
                found = True
        return found and position == end

    def marked(packet: Any) -> bool:
        data = bytes(packet)
        if not data.startswith((b"\0\0\1", b"\0\0\0\1")):
            return False
        position = data.find(b"\0\0\1")
        while 0 <= position < len(data) - 3:
            if is_slice[data[position + 3]]:
                return True
            position = data.find(b"\0\0\1", position + 3)
        return False

    return counted if in_lengths else marked


def _like_the_first_mpeg4() -> Callable[[Any], bool]:
    """Whether a packet holds one picture, after the header that the first one brought or none.

    A seek would pass by a header that differs, which says how the pictures after it are decoded.
    """
    header = None

    def promises(packet: Any) -> bool:
        nonlocal header
        data = bytes(packet)
        if len(data) < _SMALLEST_MPEG4_PICTURE or data.count(b"\0\0\1\xb6") != 1:
            return False
        before = data[: data.index(b"\0\0\1\xb6")].partition(b"\0\0\1\xb3")[0]  # without the group's time
        if header is None:
            header = before
        return before in (b"", header)

    return promises


def _like_the_first_jpeg() -> Callable[[Any], bool]:
    """Whether a picture is whole and brings the tables that the first one brought.

    The decoder keeps tables that a picture lacks from the one before, which a seek would pass by.
    """
    brought: list[list[tuple[int, ...]]] = []

    def promises(data: Any) -> bool:
        tables = _jpeg_tables(bytes(data))
        if tables is None:
            return False
        if not brought:
            brought.append(tables)
        return tables == brought[0]

    return promises


def _jpeg_tables(data: bytes) -> list[tuple[int, ...]] | None:
    """The tables before a JPEG's scan, each as its segment's mark and its own; None for one that isn't whole."""
    position, frame_found, tables = 2, False, []
    if data[:2] != b"\xff\xd8" or not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return None
    while position + 4 <= len(data) and data[position] == 0xFF:
        mark, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if mark == 0xDA:
            return tables if frame_found else None
        frame_found |= mark in (0xC0, 0xC1, 0xC2)
        start, position = position + 4, position + 2 + length
        while mark in (0xC4, 0xDB) and start < position <= len(data):
            tables.append((mark, data[start]))
            counts = sum(data[start + 1 : start + 17])
            start += 17 + counts if mark == 0xC4 else 129 if data[start] >> 4 else 65
        if mark == 0xDD:
            tables.append((mark,))
    return None


def _shown_vp9(data: Any) -> bool:
    first, last = data[0], data[-1]
    if first >> 6 != 2:
        return False
    is_superframe, profile = last >> 5 == 6, first >> 4 & 3
    return is_superframe or profile == 3 or bool(first & 8) or bool(first & 2)


_MARKS: dict[str, Callable[[Any], bool]] = {
    "mpeg1video": lambda data: b"\0\0\1\0" in bytes(data),
    "mpeg2video": lambda data: b"\0\0\1\0" in bytes(data),
    "png": lambda data: bytes(data[:4]) == b"\x89PNG",
    "prores": lambda data: bytes(data[4:8]) == b"icpf",
    "dnxhd": lambda data: bytes(data[:3]) == b"\0\0\2",
    "vp9": _shown_vp9,
}


@dataclass(frozen=True)
class FrameIndex:
    """What packets tell of a stream; packets are in decoding order, times in the time base.

    Attributes:
        packet_pts: (packets,) when each is shown.
        keyframe_positions: packets at which decoding can start.
        shown_positions: (frames,) for each frame the position of its packet.
        frame_pts: (frames,) ascending.
        seek_offsets: (packets,) where to aim a seek for the packet.
        is_hidden: (packets,) whether it is decoded and never shown: an edit list cuts it.
        is_promised: (packets,) whether its marks promise a picture. Where one doesn't, only decoding tells.
        last_duration: of the last frame, where it is known.
        places: (packets,) where each stands in the file, if times don't tell that a seek came to the right one.
    """

    packet_pts: np.ndarray
    keyframe_positions: np.ndarray
    shown_positions: np.ndarray
    frame_pts: np.ndarray
    seek_offsets: np.ndarray
    is_hidden: np.ndarray
    is_promised: np.ndarray
    last_duration: int | None
    places: tuple[int | None, ...] | None = None

    def segments(self, frame_indices: Iterable[int]) -> list["Segment"]:
        """Runs of packets that hold the frames and all that they refer to, each starting at a key frame."""
        keyframe_pts = self.packet_pts[self.keyframe_positions]
        spans = []
        for position in self.shown_positions[np.fromiter(frame_indices, dtype=np.int64)].tolist():
            # Frames shown before their key frame (open GOP) refer to the group before it.
            usable = (self.keyframe_positions <= position) & (keyframe_pts <= self.packet_pts[position])
            starts = self.keyframe_positions[usable]
            spans.append((int(starts[-1]) if len(starts) else 0, position + 1))
        runs: list[Segment] = []
        for start, stop in sorted(spans):
            if runs and start - runs[-1].stop < _MIN_SAVED_PACKETS:
                runs[-1].stop = max(runs[-1].stop, stop)
            else:
                runs.append(Segment(start, stop))
        return runs

    def counting(self, positions: Iterable[int], last_pts: int) -> "FrameIndex":
        """The index of these packets and those that promise a picture, without what is shown after `last_pts`."""
        counts = self.is_promised.copy()
        counts[list(positions)] = True
        shown = self.shown_positions[counts[self.shown_positions] & (self.frame_pts <= last_pts)]
        return replace(
            self,
            shown_positions=shown,
            frame_pts=self.packet_pts[shown],
            last_duration=self.last_duration if len(shown) == len(self.shown_positions) else None,
        )

    def lacking(self, positions: Iterable[int]) -> dict[int, int]:
        """Packets that promise a picture, with their times, without those of these positions."""
        promised = self.shown_positions[self.is_promised[self.shown_positions]]
        lacking = np.setdiff1d(promised, np.fromiter(positions, dtype=np.int64))
        return dict(zip(lacking.tolist(), self.packet_pts[lacking].tolist()))

    def numbers(self, shown: Sequence[tuple[int, int | None]], first_damaged: int | None) -> bool:
        """Whether times number the frames of a file that doesn't keep what its packets promise.

        Times by which packets are reordered were meant for showing. Those in the order of the file may be of decoding:
        they count where frames come in their order and damage explains those that are lost. Of packets that hold one
        field each, half give no frame.

        Args:
            shown: (position of its packet, time) of each frame as it comes out of the decoder.
            first_damaged: position of the first packet that is damaged, if any is.
        """
        times = [pts for _, pts in shown]
        if not set(times) <= set(self.packet_pts.tolist()):
            return False
        in_order = all(b > a for a, b in itertools.pairwise(times))
        if not (np.diff(self.packet_pts) < 0).any() and (first_damaged is None or not in_order):
            return False
        num_intact = len(self.packet_pts) if first_damaged is None else first_damaged
        lost = [position for position in self.lacking(number for number, _ in shown) if position < num_intact]
        return 4 * (len(lost) - 1) <= num_intact  # damage that nothing tells may lose one before

    def number_at(self, pts: int | None) -> int | None:
        """The number of the frame that is shown at exactly this time."""
        if pts is None:
            return None
        number = int(np.searchsorted(self.frame_pts, pts))
        return number if number < len(self.frame_pts) and self.frame_pts[number] == pts else None

    def has_leading_frames(self, segment: "Segment") -> bool:
        """Whether frames follow the segment's key frame in the file that are shown before it (open GOP)."""
        pts = self.packet_pts[segment.start : segment.stop]
        return segment.start > 0 and bool((pts < pts[0]).any())

    def expected_pts(self, segment: "Segment") -> set[int]:
        """Times of the frames that decoding the segment from its key frame must give."""
        pts = self.packet_pts[segment.start : segment.stop]
        shown = ~self.is_hidden[segment.start : segment.stop]
        if segment.start > 0:
            shown &= pts >= pts[0]
        return set(pts[shown].tolist())


@dataclass
class Segment:
    """Packets `start` (a key frame) up to `stop` (exclusive), as positions in decoding order."""

    start: int
    stop: int


def has_times(codec: str, format_name: str, reorder_depth: int) -> bool:
    """Whether a format stores when packets are shown, and a codec shows a picture for each."""
    return codec not in _UNCOUNTABLE_CODECS and not (format_name in _UNTIMED_FORMATS and reorder_depth)


def build_index(packets: Packets, codec: str, format_name: str, breaks_off: bool) -> FrameIndex | None:
    """The index, or `None` where packets don't tell, so that frames must be counted by decoding them.

    Args:
        packets: of the stream, in decoding order, without those that a broken-off file holds in part.
        codec, format_name: FFmpeg's names of them.
        breaks_off: whether the file ends before its stream does. Frames after the first that is lacking are left out.
    """
    is_hidden = np.array(packets.is_discarded, dtype=bool)
    if None in packets.pts or not packets.is_keyframe[0] or is_hidden.all():
        return None
    packet_pts = np.array(packets.pts, dtype=np.int64)
    is_keyframe = np.array(packets.is_keyframe, dtype=bool)
    if not _can_be_the_order(packet_pts, is_keyframe, codec):
        return None
    shown = np.flatnonzero(~is_hidden)
    shown = shown[np.argsort(packet_pts[shown])]
    if breaks_off:
        shown = shown[: frames_before_gap(packet_pts[shown])]
    is_promised = np.array(packets.is_intact, dtype=bool)
    if format_name in _LOSSY_FORMATS and len(shown) > 1:
        steps = np.diff(packet_pts[shown])
        is_promised[shown[1:][steps > 1.75 * np.median(steps)]] = False  # 1.5 are films at the rate of television
    key_positions = np.flatnonzero(is_keyframe)
    dts = [pts if dts is None else dts for pts, dts in zip(packets.pts, packets.dts)]
    return FrameIndex(
        packet_pts=packet_pts,
        keyframe_positions=key_positions if codec in SEEKABLE_CODECS else np.zeros(1, dtype=np.int64),
        shown_positions=shown,
        frame_pts=packet_pts[shown],
        seek_offsets=np.minimum(packet_pts, np.array(dts, dtype=np.int64)),
        is_hidden=is_hidden,
        is_promised=is_promised,
        last_duration=packets.duration[shown[-1]] or None,
        places=packets.place if format_name in _UNTIMED_FORMATS else None,
    )


def _can_be_the_order(packet_pts: np.ndarray, is_keyframe: np.ndarray, codec: str) -> bool:
    """Whether pictures could be shown in the order of these times: a wrong one would number the frames wrongly.

    Pictures before a key frame in the file are shown before it. Those shown before it that follow it in the file come
    at once. No two have the same time.
    """
    order = np.argsort(packet_pts)
    if not np.diff(packet_pts[order]).all():
        return False
    if codec not in _REORDERING_CODECS:
        return bool((np.diff(packet_pts) > 0).all())
    latest_before = np.maximum.accumulate(packet_pts)[:-1]
    if (latest_before > packet_pts[1:])[is_keyframe[1:]].any():
        return False
    last_keyframe = np.maximum.accumulate(np.where(is_keyframe, np.arange(len(packet_pts)), 0))
    is_leading = packet_pts < packet_pts[last_keyframe]
    late = is_leading[1:] & ~is_leading[:-1] & ~is_keyframe[:-1]
    rank = np.empty(len(packet_pts), dtype=np.int64)
    rank[order] = np.arange(len(packet_pts))
    return not late.any() and int(np.abs(rank - np.arange(len(rank))).max()) <= MOST_REORDERED


def frames_before_gap(frame_pts: np.ndarray) -> int:
    """How many frames come before the first that a broken-off file lacks.

    A picture that others refer to stands in the file before pictures that are shown earlier. Where the file breaks off
    between them, a gap in the times of the last frames tells.

    Args:
        frame_pts: (frames,) ascending.
    """
    steps = np.diff(frame_pts)
    if len(steps) < 2:
        return len(frame_pts)
    first = max(len(steps) - MOST_REORDERED, 0)
    gaps = np.flatnonzero(steps[first:] > 1.5 * np.median(steps))
    return first + int(gaps[0]) + 1 if len(gaps) else len(frame_pts)


def rate_and_duration(
    num_frames: int,
    frame_pts: np.ndarray | None,
    last_duration: int | None,
    time_base: Fraction,
    header_rate: Fraction | None,
) -> tuple[float | None, float | None]:
    """(fps, duration in seconds) measured on the frames; the header's rate where it agrees but for rounded times."""
    if frame_pts is None:
        return (float(header_rate), num_frames / float(header_rate)) if header_rate else (None, None)
    if not last_duration and num_frames > 1:
        last_duration = int(np.median(np.diff(frame_pts)))
    if not last_duration:
        return (float(header_rate), 1 / float(header_rate)) if header_rate else (None, None)
    duration = Fraction(int(frame_pts[-1] - frame_pts[0]) + last_duration) * time_base
    if header_rate and abs(duration - num_frames / header_rate) <= 2 * time_base:
        return float(header_rate), float(duration)
    return float(num_frames / duration), float(duration)
