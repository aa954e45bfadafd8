"""Packets to decoded frames: from the start, or from the key frames before those that are asked for."""

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from .index import MOST_REORDERED, FrameIndex, Segment
from .source import VideoSource, video_stream


def demuxed(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream; those of streams that begin within the file are passed by.

    PyAV has a list of the streams that a file begins with, and raises an IndexError for others.
    """
    while True:
        try:
            yield from container.demux(stream)
            return
        except IndexError:
            continue


class IndexMismatch(Exception):
    """The decoder gave other frames than the packets announced."""


class Damage(IndexMismatch):
    """A packet, whose position is given, cannot be decoded whole."""

    def __init__(self, position: int):
        super().__init__(f"packet {position} is damaged")
        self.position = position


class FrameDecoder:
    """Decodes one source with PyAV, again and again.

    It counts the packets given to the decoder, one packet a frame; `strict` says that a damaged packet gives no frame,
    where the decoder would patch one up; `breaks_off` that the file was seen to end before its stream does.

    Args:
        source: the file.
    """

    def __init__(self, source: VideoSource):
        self.source = source
        self.num_decoded_packets = 0
        self.strict = True
        self.breaks_off = False

    def packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """The stream's packets up to where the file ends or breaks off."""
        import av

        is_gif = container.format.name == "gif"
        try:
            for packet in demuxed(container, stream):
                if not packet.size:
                    continue
                if is_gif and not bytes(packet).endswith((b"\0", b"\0;")):
                    self.breaks_off = True  # a picture's data ends in a zero; the decoder would draw a part of it
                    return
                yield packet
        except (av.error.FFmpegError, OSError):
            self.breaks_off = True

    def feed(self, stream: Any, packet: Any) -> list[Any] | None:
        """Frames that come out of the decoder for a packet, or, for no packet, that are left; None on damage."""
        import av

        try:
            if packet is None:
                return stream.codec_context.decode(None)
            self.num_decoded_packets += 1
            return packet.decode()
        except av.error.EOFError:
            return []
        except (av.error.FFmpegError, OSError):
            return None

    def decode_linear(
        self, last_index: int | None = None, damaged: dict[int, int | None] | None = None
    ) -> Iterator[tuple[int, int, Any]]:
        """(index, number of its packet, frame), counted as they come out of the decoder, up to `last_index`.

        The packets' times are replaced by their numbers, which the decoder hands on to the frames; the time itself is
        in `frame.opaque`. Packets that cannot be decoded whole are added to `damaged` with their times.
        """
        with self.source.open() as container:
            # Several frames in flight would lose those before a damaged one.
            stream = video_stream(self.source, container, thread_type="SLICE", strict=self.strict)
            times, count = {}, 0
            for number, packet in enumerate(itertools.chain(self.packets(container, stream), [None])):
                if packet is not None:
                    times[number] = packet.pts
                    packet.pts = packet.dts = number
                frames = self.feed(stream, packet)
                if damaged is not None and (frames is None or (packet is not None and packet.is_corrupt)):
                    damaged[number] = times.get(number)
                for frame in frames or ():
                    frame.opaque = times.get(frame.pts)
                    yield count, frame.pts, frame
                    count += 1
                    if last_index is not None and count > last_index:
                        return

    def decode_seeking(self, index: FrameIndex, frame_indices: Collection[int]) -> Iterator[tuple[int, Any]]:
        """(index, frame) of the asked frames, decoding only the segments that hold them.

        A few are held until the pictures after them have come as announced: damage may show late.
        """
        segments, wanted = index.segments(frame_indices), set(frame_indices)
        # Frames that refer to what a seek skipped are damaged, which must not stop those after them. At the end of the
        # file, damage says that it was cut off.
        conceal_damage = any(index.has_leading_frames(segment) for segment in segments) and all(
            segment.stop < len(index.packet_pts) for segment in segments
        )
        with self.source.open() as container:
            stream = video_stream(self.source, container, thread_type="AUTO", strict=not conceal_damage)
            if stream.codec.canonical_name.startswith("mpeg"):
                stream.thread_type = "SLICE"  # with several frames in flight, some damage goes unreported
            for place, segment in enumerate(segments):
                expected = index.expected_pts(segment)
                first_pts, previous_pts, held = index.packet_pts[segment.start], None, []
                if place > 0 or segment.start > 0:
                    _seek(container, stream, int(index.seek_offsets[segment.start]))
                for frame in self._decode_segment(container, stream, index, segment):
                    if frame.pts in expected and (previous_pts is None or frame.pts > previous_pts):
                        previous_pts = frame.pts
                        expected.discard(frame.pts)
                        number = index.number_at(frame.pts)
                        if number in wanted:
                            held.append((number, frame))
                        if len(held) > MOST_REORDERED:
                            yield held.pop(0)
                    elif segment.start == 0 or frame.pts is None or frame.pts >= first_pts:
                        raise IndexMismatch(f"a frame came out at time {frame.pts} that no packet announced")
                if expected:
                    raise IndexMismatch(f"no frame came out for time {min(expected)}")
                yield from held

    def decode_concealing(self, index: FrameIndex, last_index: int) -> Iterator[tuple[int, Any]]:
        """(index, frame) up to `last_index` of a damaged file, from the start, as a player shows them."""
        following, before = 0, None
        for number, frame in _in_order(self._numbered(index)):
            if number < following:
                continue
            for lost in range(following, min(number, last_index + 1)):
                yield lost, before or frame
            if number > last_index:
                return
            yield number, frame
            following, before = number + 1, frame
        if before is not None:
            yield from ((lost, before) for lost in range(following, last_index + 1))

    def _numbered(self, index: FrameIndex) -> Iterator[tuple[int, Any]]:
        """(index by its packet's time, frame) as they come out of the decoder."""
        for _, _, frame in self.decode_linear():
            number = index.number_at(frame.opaque)
            if number is not None:
                yield number, frame

    def _decode_segment(self, container: Any, stream: Any, index: FrameIndex, segment: Segment) -> Iterator[Any]:
        position, first_pts = None, index.packet_pts[segment.start]
        for packet in self.packets(container, stream):
            if position is None:
                if packet.pts != first_pts:
                    continue
                position = segment.start
            elif packet.pts != index.packet_pts[position]:
                raise IndexMismatch(f"packet {position} is not the one indexed")
            if index.places is not None and packet.pos != index.places[position]:
                raise IndexMismatch(f"packet {position} stands elsewhere in the file")
            yield from self._feed_intact(stream, packet, position)
            position += 1
            if position == segment.stop:
                break
        yield from self._feed_intact(stream, None, segment.stop)

    def _feed_intact(self, stream: Any, packet: Any, position: int) -> list[Any]:
        frames = self.feed(stream, packet)
        if frames is None or any(frame.is_corrupt for frame in frames):
            raise Damage(position)
        return frames


def _in_order(numbered: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Frames by their numbers, of which a few are held: a decoder that lost pictures hands others on too late."""
    held: list[tuple[int, int, Any]] = []
    for count, (number, frame) in enumerate(numbered):
        heapq.heappush(held, (number, -count, frame))  # of two for one packet the last stands
        if len(held) > MOST_REORDERED:
            number, _, frame = heapq.heappop(held)
            yield number, frame
    yield from ((number, frame) for number, _, frame in sorted(held))


def _seek(container: Any, stream: Any, offset: int) -> None:
    import av

    try:
        container.seek(offset, stream=stream)
    except (av.error.FFmpegError, OSError) as error:
        raise IndexMismatch(f"seeking failed ({error})") from error
