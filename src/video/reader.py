"""Frames of one video by their number: exact, without decoding more than the asked frames need.

A first pass reads packets without decoding them and lists when each frame is shown and where decoding can start.
Frames are then decoded from the nearest such point, and every decoded time is compared with the list. Where packets
don't tell, or don't keep what they promise, the frames are counted by decoding everything once. Either way frame `i`
is the `i`-th frame that a plain decode from the start shows, whichever frames are asked for.

Where a file breaks off, the frames end before the first that it does not hold whole. Damage inside a file leaves what
the decoder makes of it, as in a player: a patched picture, or the one before for a frame that is lost altogether. Both
are warned of, once.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers.utils import logging

from .index import (
    FrameIndex,
    Packet,
    Segment,
    build_index,
    frames_before_gap,
    has_times,
    promises_picture,
    rate_and_duration,
)
from .metadata import VideoFileMetadata
from .source import VideoDecodeError, VideoLimits, VideoSource, too_many_packets, video_stream


logger = logging.get_logger(__name__)

Sample = Sequence[int] | Callable[[VideoFileMetadata], Iterable[int]] | None
"""Frame numbers, a function from the metadata to them, or `None` for all frames."""


class _IndexMismatch(Exception):
    """The decoder gave other frames than the packets announced."""


class _Damage(_IndexMismatch):
    """A packet, whose position is given, cannot be decoded whole."""

    def __init__(self, position: int):
        super().__init__(f"packet {position} is damaged")
        self.position = position


class VideoReader:
    """One video, indexed; decodes frames with PyAV. A reader of a path can be pickled and sent to workers.

    `num_decoded_packets` counts the packets given to the decoder: one packet is one frame, so this is the work done.
    `metadata` describes the video; `index` is `None` where packets don't tell which frames there are, and frames are
    then counted from the start.

    Args:
        source: as for [`~vidformers.decode_video`].
        limits: what is too large.

    Raises:
        VideoDecodeError: the source is missing, empty, damaged, too large, or without frames.
    """

    def __init__(self, source: Any, limits: VideoLimits | None = None):
        self.source = VideoSource(source, limits)
        self.name = self.source.name
        self.num_decoded_packets = 0
        self._strict = True
        self._conceals = False
        self._breaks_off = False
        packets = self._demux()
        self.index: FrameIndex | None = None
        if self._timed and packets:
            self.index = build_index(packets, self._codec, self._breaks_off)
        if self.index is None:
            self.rebuild_index()
        else:
            self._set_metadata(self.index.frame_pts, self.index.last_duration)
            self._warn_of_end()

    # ------------------------------------------------------------------------------------------------- reading

    def read(self, sample: Sample = None) -> tuple[np.ndarray, VideoFileMetadata]:
        """Decode chosen frames.

        Args:
            sample: frame numbers in any order, repeats allowed; a function from the metadata to such numbers, which
                may look at `metadata.frame_seconds`; or `None` for all frames.

        Returns:
            frames, uint8 RGB (frames, height, width, 3), upright; and the metadata with `frames_indices`.

        Raises:
            VideoDecodeError: the file is damaged so that a frame cannot be had.
            IndexError: a number lies outside the video.
        """
        (result,) = self.read_many([sample])
        return result

    def read_many(self, samples: Sequence[Sample]) -> Iterator[tuple[np.ndarray, VideoFileMetadata]]:
        """Decode several samples in one pass: a frame that many of them hold is decoded once.

        Samples come in the order given. Those in the order of their frames, such as windows, need the memory of the
        few that overlap.

        Args:
            samples: each as for [`~VideoReader.read`], which says what comes and what is raised.
        """
        done = 0
        while done < len(samples):
            try:
                for result in self._read_all(samples[done:]):
                    done += 1
                    yield result
            except _IndexMismatch as mismatch:
                self._distrust(mismatch)

    def _read_all(self, samples: Sequence[Sample]) -> Iterator[tuple[np.ndarray, VideoFileMetadata]]:
        chosen = [self.frame_indices(sample) for sample in samples]
        places: dict[int, list[tuple[int, int]]] = {}  # frame number → samples, and slots in them
        for number, indices in enumerate(chosen):
            for slot, index in enumerate(indices):
                places.setdefault(index, []).append((number, slot))
        shape = (self.metadata.height, self.metadata.width, 3)
        missing = [len(set(indices)) for indices in chosen]
        buffers: dict[int, np.ndarray] = {}
        following = 0
        for index, frame in itertools.chain(self._decode(sorted(places)), [(None, None)]):
            for number in {number for number, _ in places.get(index, ())}:
                if number not in buffers:
                    buffers[number] = np.empty((len(chosen[number]), *shape), dtype=np.uint8)
                missing[number] -= 1
            for number, slot in places.pop(index, ()):
                buffers[number][slot] = frame
            while following < len(chosen) and not missing[following]:
                frames = buffers.pop(following, np.empty((0, *shape), dtype=np.uint8))
                yield frames, self.metadata.choosing(chosen[following])
                following += 1
        if places:
            total = self.metadata.total_num_frames
            raise VideoDecodeError(self.name, f"frame {min(places)} of {total} could not be decoded")

    def frame_indices(self, sample: Sample) -> list[int]:
        """The frame numbers that a sample stands for.

        Raises:
            ValueError: they aren't a flat sequence of integers.
            IndexError: one lies outside the video.
        """
        return checked_indices(sample, self.metadata, self.name)

    def _decode(self, frame_indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, upright RGB) of the frames, ascending within a run of packets, each once."""
        if not frame_indices:
            return
        wanted, to_rgb = set(frame_indices), _RgbConverter(self.name, self.metadata, self._matrix)
        if self.index is None:
            decoded = ((index, frame) for index, _, frame in self._decode_linear(frame_indices[-1]))
        elif self._conceals:
            decoded = self._decode_concealing(frame_indices)
        else:
            decoded = self._decode_seeking(frame_indices)
        for index, frame in decoded:
            if index in wanted:
                wanted.discard(index)
                yield index, to_rgb(frame, index)

    def _distrust(self, mismatch: _IndexMismatch) -> None:
        """Look at a file again whose packets did not keep what they promise."""
        logger.info(f"{self.name}: {mismatch}; decoding from the start.")
        if isinstance(mismatch, _Damage) or len(self.index.keyframe_positions) == 1:
            self.rebuild_index()
        else:
            self.index = replace(self.index, keyframe_positions=np.zeros(1, dtype=np.int64))

    # ------------------------------------------------------------------------------------ which frames there are

    def _demux(self) -> list[Packet]:
        """All packets, and the size and orientation of the first frame, for which a few are decoded."""
        packets: list[Packet] = []
        with self.source.open() as container:
            stream = video_stream(self.source, container, thread_type="SLICE", strict=False)
            self._codec = stream.codec.canonical_name
            self._time_base, self._header_rate = stream.time_base, stream.average_rate
            extradata = stream.codec_context.extradata
            promises = promises_picture(self._codec, extradata)
            first_frame, limit = None, self.source.limits.packets
            for packet in itertools.chain(self._packets(container, stream), [None]):
                if packet is not None:
                    is_intact = not packet.is_corrupt and promises(memoryview(packet))
                    packets.append(
                        Packet(
                            packet.pts, packet.dts, packet.duration, packet.is_keyframe, packet.is_discard, is_intact
                        )
                    )
                    if len(packets) > limit:
                        raise too_many_packets(self.source, len(packets))
                if first_frame is None:
                    first_frame = next(iter(self._feed(stream, packet) or ()), None)
            if first_frame is None:
                cause = "it contains no frame that can be decoded" if packets else "its video stream is empty"
                raise VideoDecodeError(self.name, cause)
            self._timed = has_times(self._codec, container.format.name, stream.codec_context.reorder_depth)
            self._breaks_off |= _ends_early(container, stream, packets)
        # The whole video is turned as its first frame. Asking a frame for its matrix would keep it from being freed.
        self._matrix = display_matrix(first_frame)
        size = (first_frame.height, first_frame.width)
        self._shape = size[::-1] if _swaps_axes(self._matrix) else size
        return packets

    def rebuild_index(self) -> None:
        """Find the frames by decoding all of them; from then on they are decoded from the start.

        Where a damaged file shows its frames in the order of its packets' times, these still number the frames, so
        that one that is lost moves no other. Elsewhere the frames that come out are counted.
        """
        packets, self.index, self._strict = self.index, None, True
        damaged: dict[int, int | None] = {}
        shown = [(number, frame.opaque) for _, number, frame in self._decode_linear(damaged=damaged)]
        last_intact = max((number for number, _ in shown if number not in damaged), default=-1)
        cut = {number: pts for number, pts in damaged.items() if number > last_intact}
        if damaged:
            # The decoder drops what it finds damaged only when asked to; a player shows it.
            self._strict = False
            shown = [(number, frame.opaque) for _, number, frame in self._decode_linear()]
        self._breaks_off |= bool(cut)
        shown = shown[: _frames_before_cut(shown, cut)]
        frame_pts = [pts for _, pts in shown]
        in_order = None not in frame_pts and all(b > a for a, b in itertools.pairwise(frame_pts))
        if in_order and self._breaks_off:
            shown = shown[: frames_before_gap(np.array(frame_pts))]
            frame_pts = frame_pts[: len(shown)]
        if not shown:
            raise VideoDecodeError(self.name, "it contains no frame that can be decoded")
        if packets is not None and damaged and in_order and set(frame_pts) <= set(packets.frame_pts.tolist()):
            self.index, self._conceals = packets.up_to(frame_pts[-1]), True
            self._set_metadata(self.index.frame_pts, self.index.last_duration)
        else:
            self._set_metadata(np.array(frame_pts) if in_order else None, None, len(shown))
        self._warn_of_damage([number for number in damaged if number not in cut], shown)
        self._warn_of_end()

    def _set_metadata(
        self, frame_pts: np.ndarray | None, last_duration: int | None, num_frames: int | None = None
    ) -> None:
        num_frames = len(frame_pts) if frame_pts is not None else num_frames
        fps, duration_seconds = rate_and_duration(
            num_frames, frame_pts, last_duration, self._time_base, self._header_rate
        )
        self.metadata = VideoFileMetadata(
            total_num_frames=num_frames,
            fps=fps,
            width=self._shape[1],
            height=self._shape[0],
            duration=duration_seconds,
            video_backend="pyav",
        )
        if frame_pts is not None:
            self.metadata.frame_seconds = frame_pts * float(self._time_base)

    def _warn_of_damage(self, damaged: Sequence[int], shown: Sequence[tuple[int, int | None]]) -> None:
        if not damaged:
            return
        first = next((index for index, (number, _) in enumerate(shown) if number >= min(damaged)), len(shown))
        logger.warning(
            f"{self.name}: {len(damaged)} damaged packets, the first at frame {first}{self._time_of(first)}. The "
            "frames around them are the decoder's best guess, and the one before stands for one that is lost, as in a "
            "player."
        )

    def _warn_of_end(self) -> None:
        if self._breaks_off:
            last = self.metadata.total_num_frames - 1
            logger.warning(
                f"{self.name}: the file breaks off after frame {last}{self._time_of(last)}; what follows is lacking."
            )

    def _time_of(self, index: int) -> str:
        times = self.metadata.frame_seconds
        return "" if times is None or index >= len(times) else f" ({times[index]:.2f} s)"

    # ------------------------------------------------------------------------------------------------ decoding

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """The stream's packets up to where the file ends or breaks off."""
        import av

        is_gif = container.format.name == "gif"
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if is_gif and not bytes(packet).endswith((b"\0", b"\0;")):
                    self._breaks_off = True  # a picture's data ends in a zero; the decoder would draw a part of it
                    return
                yield packet
        except (av.error.FFmpegError, OSError):
            self._breaks_off = True

    def _feed(self, stream: Any, packet: Any) -> list[Any] | None:
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

    def _decode_linear(
        self, last_index: int | None = None, damaged: dict[int, int | None] | None = None
    ) -> Iterator[tuple[int, int, Any]]:
        """(index, number of its packet, frame), counted as they come out of the decoder, up to `last_index`.

        The packets' times are replaced by their numbers, which the decoder hands on to the frames; the time itself is
        in `frame.opaque`. Packets that cannot be decoded whole are added to `damaged` with their times.
        """
        with self.source.open() as container:
            # Several frames in flight would lose those before a damaged one.
            stream = video_stream(self.source, container, thread_type="SLICE", strict=self._strict)
            times, count = {}, 0
            for number, packet in enumerate(itertools.chain(self._packets(container, stream), [None])):
                if packet is not None:
                    times[number] = packet.pts
                    packet.pts = packet.dts = number
                frames = self._feed(stream, packet)
                if damaged is not None and (frames is None or (packet is not None and packet.is_corrupt)):
                    damaged[number] = times.get(number)
                for frame in frames or ():
                    frame.opaque = times.get(frame.pts)
                    yield count, frame.pts, frame
                    count += 1
                    if last_index is not None and count > last_index:
                        return

    def _decode_seeking(self, frame_indices: Iterable[int]) -> Iterator[tuple[int, Any]]:
        """(index, frame) of at least the asked frames, decoding only the segments that hold them."""
        segments = self.index.segments(frame_indices)
        # Frames that refer to what a seek skipped are damaged, which must not stop those after them. At the end of the
        # file, damage says that it was cut off.
        conceal_damage = any(self.index.has_leading_frames(segment) for segment in segments) and all(
            segment.stop < len(self.index.packet_pts) for segment in segments
        )
        index_of_pts = {int(pts): index for index, pts in enumerate(self.index.frame_pts)}
        with self.source.open() as container:
            stream = video_stream(self.source, container, thread_type="AUTO", strict=not conceal_damage)
            for number, segment in enumerate(segments):
                expected = self.index.expected_pts(segment)
                first_pts, previous_pts = self.index.packet_pts[segment.start], None
                for frame in self._decode_segment(container, stream, segment, seek=number > 0 or segment.start > 0):
                    if frame.pts in expected and (previous_pts is None or frame.pts > previous_pts):
                        previous_pts = frame.pts
                        expected.discard(frame.pts)
                        if frame.pts in index_of_pts:
                            yield index_of_pts[frame.pts], frame
                    elif segment.start == 0 or frame.pts is None or frame.pts >= first_pts:
                        raise _IndexMismatch(f"a frame came out at time {frame.pts} that no packet announced")
                if expected:
                    raise _IndexMismatch(f"no frame came out for time {min(expected)}")

    def _decode_concealing(self, frame_indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(index, frame) of at least the asked frames of a damaged file, from the start, as a player shows them."""
        index_of_pts = {int(pts): index for index, pts in enumerate(self.index.frame_pts)}
        following, before = 0, None
        for _, _, frame in self._decode_linear():
            index = index_of_pts.get(frame.opaque)
            if index is None:
                continue
            for lost in range(following, index):
                yield lost, before or frame
            yield index, frame
            following, before = index + 1, frame
            if index >= frame_indices[-1]:
                return
        if before is not None:
            yield from ((lost, before) for lost in range(following, frame_indices[-1] + 1))

    def _decode_segment(self, container: Any, stream: Any, segment: Segment, seek: bool) -> Iterator[Any]:
        import av

        if seek:
            try:
                container.seek(int(self.index.seek_offsets[segment.start]), stream=stream)
            except (av.error.FFmpegError, OSError) as error:
                raise _IndexMismatch(f"seeking failed ({error})") from error
        position, first_pts = None, self.index.packet_pts[segment.start]
        for packet in self._packets(container, stream):
            if position is None:
                if packet.pts != first_pts:
                    continue
                position = segment.start
            elif packet.pts != self.index.packet_pts[position]:
                raise _IndexMismatch(f"packet {position} is not the one indexed")
            yield from self._feed_intact(stream, packet, position)
            position += 1
            if position == segment.stop:
                break
        yield from self._feed_intact(stream, None, segment.stop)

    def _feed_intact(self, stream: Any, packet: Any, position: int) -> list[Any]:
        frames = self._feed(stream, packet)
        if frames is None or any(frame.is_corrupt for frame in frames):
            raise _Damage(position)
        return frames


def checked_indices(sample: Sample, metadata: VideoFileMetadata, name: str) -> list[int]:
    """The frame numbers that a sample stands for, as [`VideoReader.frame_indices`]."""
    total = metadata.total_num_frames
    if sample is None:
        return list(range(total))
    chosen = sample(metadata.choosing(None)) if callable(sample) else sample
    chosen = np.asarray(chosen)
    if chosen.ndim != 1 or (chosen.size and not np.issubdtype(chosen.dtype, np.integer)):
        raise ValueError(
            f"Expected frame indices as a flat sequence of integers, got shape {chosen.shape} of {chosen.dtype}."
        )
    outside = chosen[(chosen < 0) | (chosen >= total)]
    if outside.size:
        raise IndexError(
            f"{name} has {total} frames: expected indices from 0 to {total - 1}, got {int(outside[0])}. Choose them "
            "from the metadata's total_num_frames by passing a function as `sample`."
        )
    return [int(index) for index in chosen]


def _ends_early(container: Any, stream: Any, packets: Sequence[Packet]) -> bool:
    """Whether the header announces more than the file holds, or its last packet is cut."""
    if not packets:
        return False
    name = container.format.name
    if "mp4" in name:
        return stream.frames > len(packets)
    times = [packet.pts for packet in packets if packet.pts is not None]
    if "matroska" in name and container.duration and times:
        end = (max(times) + 2 * (packets[-1].duration or 0)) * stream.time_base
        return end + 0.1 < container.duration / 1_000_000
    return False


def _frames_before_cut(shown: Sequence[tuple[int, int | None]], cut: dict[int, int | None]) -> int:
    """How many of the frames that come out come before any of a cut packet, by order and by time."""
    lost = [pts for pts in cut.values() if pts is not None]
    for index, (number, pts) in enumerate(shown):
        if number in cut or (lost and pts is not None and pts > min(lost)):
            return index
    return len(shown)


# ------------------------------------------------------------------------------------------------------- upright RGB


class _RgbConverter:
    """Decoded frames to upright uint8 RGB arrays (height, width, 3) of one size."""

    def __init__(self, name: str, metadata: VideoFileMetadata, matrix: tuple[int, ...] | None):
        from av.video.reformatter import VideoReformatter

        self.name, self.shape, self.matrix = name, (metadata.height, metadata.width), matrix
        self.reformatter = VideoReformatter()  # keeps its scaler, which costs more to build than to run

    def __call__(self, frame: Any, index: int) -> np.ndarray:
        shape = (frame.width, frame.height) if _swaps_axes(self.matrix) else (frame.height, frame.width)
        if shape != self.shape:
            cause = f"frame {index} is {shape[0]}x{shape[1]}, the first one {self.shape[0]}x{self.shape[1]}"
            raise VideoDecodeError(self.name, cause, "Encode it again at one frame size.")
        rgb = self.reformatter.reformat(frame, format="rgb24").to_ndarray()
        return upright(rgb, self.matrix)


def upright(picture: np.ndarray, matrix: tuple[int, ...] | None) -> np.ndarray:
    """A picture (height, width, 3) as a display matrix says to show it: turned by quarters and mirrored.

    Args:
        picture: as it was decoded.
        matrix: the nine numbers of ISO/IEC 14496-12, 6.2.2, by rows: (x, y) is shown at (ax + cy, bx + dy), with a and
            b the first two of them, c and d those of the second row. Other angles count as the nearest quarter.
    """
    if matrix is None:
        return picture
    a, b, _, c, d = matrix[:5]
    x, y = a, d
    if _swaps_axes(matrix):
        picture, x, y = picture.transpose(1, 0, 2), c, b
    if x < 0:
        picture = picture[:, ::-1]
    return picture[::-1] if y < 0 else picture


def _swaps_axes(matrix: tuple[int, ...] | None) -> bool:
    return matrix is not None and abs(matrix[1]) + abs(matrix[3]) > abs(matrix[0]) + abs(matrix[4])


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The display matrix that comes with a frame, `None` for one that is shown as it is."""
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            return tuple(np.frombuffer(bytes(data), dtype=np.int32).tolist())
    return None
