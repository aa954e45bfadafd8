"""From a video file to frames: exact, by index, without decoding more than the asked frames need.

A first pass reads packets without decoding them and lists when each frame is shown and where decoding can start.
Frames are then decoded from the nearest such point, and every decoded time is compared with the list: where a file
does not keep what its packets promise, the frames are counted by decoding everything once. Either way frame `i` is the
`i`-th frame that a plain decode from the start shows.

Files that were cut off give the frames that they hold whole. Transport and program streams, raw streams and GIF store
no sizes of their pictures, so that a last picture cut within its final bytes can pass for a whole one.
"""

import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from transformers.utils import logging
from transformers.video_utils import VideoMetadata


logger = logging.get_logger(__name__)

SampleFn = Callable[[VideoMetadata], Iterable[int]]

# Decoders whose state is wholly reset at a key frame. All others (GIF, for one) are decoded from the start.
_SEEKABLE_CODECS = frozenset(
    "h264 hevc vp9 av1 mpeg4 mpeg1video mpeg2video mjpeg prores dnxhd ffv1 huffyuv rawvideo png".split()
)
# VP8 files hold packets that are decoded and never shown, without a mark.
_UNCOUNTABLE_CODECS = frozenset({"vp8"})
# AVI stores no presentation times: where frames are reordered, FFmpeg reports those of the decoding order.
_UNTIMED_FORMATS = frozenset({"avi"})
# FFmpeg draws these text formats as pictures, so that a stray .txt file would pass for a video.
_TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
# A seek empties the decoder's pipeline: below this many saved packets, reading on is as fast.
_MIN_SAVED_PACKETS = 4
_REDOWNLOAD = "Check that the file is complete (`ffprobe FILE` shows what it holds), or encode it again with ffmpeg."


class VideoDecodeError(ValueError):
    """A video that cannot be read; the message names the file, the cause and a remedy."""

    def __init__(self, name: str, cause: str, remedy: str = _REDOWNLOAD):
        super().__init__(f"Cannot decode {name}: {cause}. {remedy}")
        self.name, self.cause, self.remedy = name, cause, remedy

    def __reduce__(self):
        return type(self), (self.name, self.cause, self.remedy)


def decode_video(
    source, sample: Sequence[int] | SampleFn | None = None, *, backend: str = "pyav"
) -> tuple[np.ndarray, VideoMetadata]:
    """Decode chosen frames of a video.

    Args:
        source: path, `os.PathLike`, http(s) URL, `bytes`, or a binary file object (read from its beginning).
        sample: frame indices in any order, repeats allowed; or a function from the metadata to such indices
            (`functools.partial(vidformers.video.uniform_indices, num_frames=16)`); or None for all frames.
        backend: "pyav", or "torchcodec" (exact seek mode; the package must be installed and loadable).

    Returns:
        frames, uint8 RGB of shape (num_frames, height, width, 3), turned upright as the file's rotation says; and the
        metadata: `fps` in frames per second and `duration` in seconds are measured over all frames, `width` and
        `height` are those of the returned frames, `frames_indices` are the indices that were decoded.

    Raises:
        VideoDecodeError: the source is missing, empty, damaged, or without frames.
        IndexError: an index lies outside the video.
        ImportError: the backend is not usable here.
    """
    if backend == "torchcodec":
        return _decode_with_torchcodec(source, sample)
    if backend != "pyav":
        raise ValueError(f'Expected backend "pyav" or "torchcodec", got {backend!r}.')
    return VideoReader(source).read(sample)


def probe_video(source) -> VideoMetadata:
    """Metadata of a video (`frames_indices` is None), for the cost of reading its packets and decoding one frame.

    Args:
        source: as for [`decode_video`], which raises the same errors.
    """
    return VideoReader(source).metadata


@dataclass(frozen=True)
class FrameIndex:
    """What demuxing, or a full decode, tells about a stream; packets are in decoding order, times in `time_base`."""

    packet_pts: np.ndarray  # (num_packets,)
    keyframe_positions: np.ndarray  # packets at which decoding can start
    shown_positions: np.ndarray  # (num_frames,) frame index → position of its packet
    frame_pts: np.ndarray  # (num_frames,) increasing
    seek_offsets: np.ndarray  # (num_packets,) where to aim a seek for the packet
    discarded: np.ndarray  # (num_packets,) decoded but never shown: an edit list cuts it
    last_duration: int | None

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

    def has_leading_frames(self, segment: "Segment") -> bool:
        """Whether frames follow the segment's key frame in the file that are shown before it (open GOP)."""
        pts = self.packet_pts[segment.start : segment.stop]
        return segment.start > 0 and bool((pts < pts[0]).any())

    def expected_pts(self, segment: "Segment") -> set[int]:
        """Times of the frames that decoding the segment from its key frame must give."""
        pts = self.packet_pts[segment.start : segment.stop]
        shown = ~self.discarded[segment.start : segment.stop]
        if segment.start > 0:
            shown &= pts >= pts[0]
        return set(pts[shown].tolist())


@dataclass
class Segment:
    """Packets `start` (a key frame) up to `stop` (exclusive), as positions in decoding order."""

    start: int
    stop: int


class _IndexMismatch(Exception):
    """The decoder gave other frames than the packets announced."""


class VideoReader:
    """One video, indexed; decodes frames with PyAV.

    `num_decoded_packets` counts the packets given to the decoder since the index was built: one packet is one frame,
    so this is the work done. `metadata` describes the video; `index` is None where the packets' times cannot be relied
    on, and frames are then counted from the start.

    Args:
        source: as for [`decode_video`].
    """

    def __init__(self, source):
        self.name, self._target = _resolve(source)
        self.num_decoded_packets = 0
        self._cut_packets: frozenset[int] = frozenset()
        packets, first_frame, self._time_base, header_rate = self._demux()
        self._first_frame = first_frame
        self._header_rate = header_rate
        self.index = _index_from_packets(packets, seekable=self._codec in _SEEKABLE_CODECS) if self._timed else None
        if self.index is None:
            self.rebuild_index()
        else:
            self._set_metadata(self.index.frame_pts, self.index.last_duration)

    def read(self, sample: Sequence[int] | SampleFn | None = None) -> tuple[np.ndarray, VideoMetadata]:
        """Decode chosen frames; `rebuild_index` is called where the packets' times turn out to be wrong.

        Args:
            sample: as for [`decode_video`].

        Returns:
            Frames (num_frames, height, width, 3), uint8, and metadata, as [`decode_video`] returns them.
        """
        try:
            return self._read(sample)
        except _IndexMismatch as mismatch:
            logger.info(f"{self.name}: {mismatch}; decoding from the start.")
            if len(self.index.keyframe_positions) > 1:
                self.index = replace(self.index, keyframe_positions=np.zeros(1, dtype=np.int64))
            else:
                self.rebuild_index()
        return self.read(sample)

    def _read(self, sample) -> tuple[np.ndarray, VideoMetadata]:
        total = self.metadata.total_num_frames
        indices = _frame_indices(sample, self.metadata, self.name)
        frames = np.empty((len(indices), self.metadata.height, self.metadata.width, 3), dtype=np.uint8)
        slots: dict[int, list[int]] = {}
        for slot, index in enumerate(indices):
            slots.setdefault(index, []).append(slot)
        if self.index is None:
            decoded = ((index, frame) for index, _, frame in self._decode_linear(max(slots, default=0)))
        else:
            decoded = self._decode_seeking(slots)
        to_rgb = _RgbConverter(self.name, self.metadata)
        missing = set(slots)
        for index, frame in decoded:
            if index in missing:
                frames[slots[index]] = to_rgb(frame, index)
                missing.discard(index)
        if missing:
            raise VideoDecodeError(self.name, f"frame {min(missing)} of {total} could not be decoded")
        metadata = VideoMetadata(**{**self.metadata, "frames_indices": indices})
        return frames, metadata

    def rebuild_index(self) -> None:
        """Count the frames by decoding all of them; from then on frames are found by counting from the start.

        Packets at the end that do not decode whole are what a cut-off file leaves: their pictures are dropped.
        """
        self.index, self._cut_packets = None, frozenset()
        damaged, sources = set(), []
        for _, source_packet, frame in self._decode_linear(damaged=damaged):
            sources.append((source_packet, frame.opaque))
        last_intact = max((packet for packet, _ in sources if packet not in damaged), default=-1)
        self._cut_packets = frozenset(packet for packet in damaged if packet > last_intact)
        if damaged - self._cut_packets:
            logger.warning(
                f"{self.name}: {len(damaged - self._cut_packets)} damaged packets, the first is number "
                f"{min(damaged)}. The frames around them are the decoder's best guess, as in a player."
            )
        frame_pts = [pts for packet, pts in sources if packet not in self._cut_packets]
        if not frame_pts:
            raise VideoDecodeError(self.name, "it contains no frame that can be decoded")
        in_order = None not in frame_pts and all(b > a for a, b in zip(frame_pts, frame_pts[1:]))
        self._set_metadata(np.array(frame_pts) if in_order else None, None, len(frame_pts))

    def _demux(self):
        """List all packets, and decode until the first frame comes out: its size and rotation are the video's."""
        with _open(self.name, self._target) as container:
            stream = _video_stream(self.name, container, thread_type="SLICE")
            self._codec = stream.codec.canonical_name
            packets, first_frame = [], None
            for packet in itertools.chain(_intact_packets(container, stream), [None]):
                if packet is not None:
                    packets.append((packet.pts, packet.dts, packet.is_keyframe, packet.is_discard, packet.duration))
                if first_frame is None:
                    first_frame = next(iter(self._feed(stream, packet) or ()), None)
            if first_frame is None:
                cause = "it contains no frame that can be decoded" if packets else "its video stream is empty"
                raise VideoDecodeError(self.name, cause)
            self._timed = not (
                self._codec in _UNCOUNTABLE_CODECS
                or (container.format.name in _UNTIMED_FORMATS and stream.codec_context.reorder_depth)
            )
            return packets, first_frame, stream.time_base, stream.average_rate

    def _feed(self, stream, packet) -> list | None:
        """Frames that come out of the decoder for a packet, or, for no packet, that are left; None on damage."""
        import av

        try:
            if packet is None:
                return stream.codec_context.decode(None)
            self.num_decoded_packets += 1
            return packet.decode()
        except av.error.EOFError:
            return []
        except av.error.FFmpegError:
            return None

    def _set_metadata(self, frame_pts: np.ndarray | None, last_duration: int | None, num_frames: int | None = None):
        num_frames = len(frame_pts) if frame_pts is not None else num_frames
        fps, duration_seconds = _rate_and_duration(
            num_frames, frame_pts, last_duration, self._time_base, self._header_rate
        )
        height, width = self._first_frame.height, self._first_frame.width
        if _quarter_turns(self._first_frame) % 2:
            height, width = width, height
        self.metadata = VideoMetadata(
            total_num_frames=num_frames,
            fps=fps,
            width=width,
            height=height,
            duration=duration_seconds,
            video_backend="pyav",
        )

    def _decode_linear(self, last_index: int | None = None, damaged: set[int] | None = None) -> Iterator[tuple]:
        """(index, number of its packet, frame), counted as they come out of the decoder, up to `last_index`.

        The packets' times are replaced by their numbers, which the decoder hands on to the frames; the time itself is
        in `frame.opaque`. Packets that fail to decode are added to `damaged`.
        """
        with _open(self.name, self._target) as container:
            # Several frames in flight would lose those before a damaged one.
            stream = _video_stream(self.name, container, thread_type="SLICE")
            times, count = {}, 0
            for number, packet in enumerate(itertools.chain(_intact_packets(container, stream), [None])):
                if packet is not None:
                    times[number] = packet.pts
                    packet.pts = packet.dts = number
                frames = self._feed(stream, packet)
                if frames is None and damaged is not None:
                    damaged.add(number)
                for frame in frames or ():
                    if frame.pts not in self._cut_packets:
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
        with _open(self.name, self._target) as container:
            stream = _video_stream(self.name, container, "AUTO", conceal_damage)
            for number, segment in enumerate(segments):
                expected = self.index.expected_pts(segment)
                first_pts, previous_pts = self.index.packet_pts[segment.start], None
                for frame in self._decode_segment(container, stream, segment, seek=number > 0 or segment.start > 0):
                    if frame.pts in expected and (previous_pts is None or frame.pts > previous_pts):
                        previous_pts = frame.pts
                        expected.discard(frame.pts)
                        yield index_of_pts[frame.pts], frame
                    elif segment.start == 0 or frame.pts is None or frame.pts >= first_pts:
                        raise _IndexMismatch(f"a frame came out at time {frame.pts} that no packet announced")
                if expected:
                    raise _IndexMismatch(f"no frame came out for time {min(expected)}")

    def _decode_segment(self, container, stream, segment: Segment, seek: bool) -> Iterator[Any]:
        import av

        if seek:
            try:
                container.seek(int(self.index.seek_offsets[segment.start]), stream=stream)
            except av.error.FFmpegError as error:
                raise _IndexMismatch(f"seeking failed ({error})") from error
        position, first_pts = None, self.index.packet_pts[segment.start]
        for packet in _intact_packets(container, stream):
            if position is None:
                if packet.pts != first_pts:
                    continue
                position = segment.start
            elif packet.pts != self.index.packet_pts[position]:
                raise _IndexMismatch(f"packet {position} is not the one indexed")
            frames = self._feed(stream, packet)
            if frames is None:
                raise _IndexMismatch(f"packet {position} is damaged")
            yield from frames
            position += 1
            if position == segment.stop:
                break
        yield from self._feed(stream, None) or ()


class _RgbConverter:
    """Decoded frames to upright uint8 RGB arrays (height, width, 3) of one size."""

    def __init__(self, name: str, metadata: VideoMetadata):
        from av.video.reformatter import VideoReformatter

        self.name, self.shape = name, (metadata.height, metadata.width, 3)
        self.reformatter = VideoReformatter()  # keeps its scaler, which costs more to build than to run

    def __call__(self, frame, index: int) -> np.ndarray:
        rgb = self.reformatter.reformat(frame, format="rgb24").to_ndarray()
        turns = _quarter_turns(frame)
        rgb = np.rot90(rgb, turns) if turns else rgb
        if rgb.shape != self.shape:
            cause = f"frame {index} is {rgb.shape[0]}x{rgb.shape[1]}, the first one {self.shape[0]}x{self.shape[1]}"
            raise VideoDecodeError(self.name, cause, "Encode it again at one frame size.")
        return rgb


def _quarter_turns(frame) -> int:
    """Counter-clockwise quarter turns that bring a decoded frame upright."""
    return round(frame.rotation / 90) % 4


def _index_from_packets(packets: list[tuple], seekable: bool) -> FrameIndex | None:
    """The index, or None where timestamps are absent or not unique, so that frames must be counted instead."""
    pts, dts, is_key, discarded, durations = (list(column) for column in zip(*packets))
    if None in pts or len(set(pts)) != len(pts) or not is_key[0] or all(discarded):
        return None
    packet_pts, discarded = np.array(pts, dtype=np.int64), np.array(discarded, dtype=bool)
    shown = np.flatnonzero(~discarded)
    shown = shown[np.argsort(packet_pts[shown])]
    offsets = [p if d is None else min(p, d) for p, d in zip(pts, dts)]
    return FrameIndex(
        packet_pts=packet_pts,
        keyframe_positions=np.flatnonzero(is_key) if seekable else np.zeros(1, dtype=np.int64),
        shown_positions=shown,
        frame_pts=packet_pts[shown],
        seek_offsets=np.array(offsets, dtype=np.int64),
        discarded=discarded,
        last_duration=durations[shown[-1]] or None,
    )


def _rate_and_duration(
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


def _frame_indices(sample: Sequence[int] | SampleFn | None, metadata: VideoMetadata, name: str) -> list[int]:
    total = metadata.total_num_frames
    if sample is None:
        return list(range(total))
    chosen = sample(VideoMetadata(**metadata)) if callable(sample) else sample
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


def _resolve(source) -> tuple[str, Any]:
    """(name for messages, what PyAV and torchcodec can open more than once: a path or a seekable file object)."""
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return source, io.BytesIO(_download(source))
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        name = repr(path)
        if not os.path.exists(path):
            raise VideoDecodeError(name, "there is no such file", "Check the path, and that it is not a model name.")
        if os.path.isdir(path):
            raise VideoDecodeError(name, "it is a directory", "Pass the path of one video file.")
        if os.path.isfile(path) and os.path.getsize(path) == 0:
            raise VideoDecodeError(name, "the file is empty")
        return name, os.path.abspath(path)  # FFmpeg would take a relative path such as a:b.mp4 for a URL
    if isinstance(source, (bytes, bytearray, memoryview)):
        data, name = source, f"<{len(source)} bytes>"
    elif hasattr(source, "read"):
        name = repr(getattr(source, "name", source))
        if hasattr(source, "seekable") and source.seekable() and source.seek(0, os.SEEK_END):
            return name, source
        data = source.read()
    else:
        raise TypeError(f"Expected a path, URL, bytes or binary file object to decode, got {type(source).__name__}.")
    if isinstance(data, str):
        raise TypeError(f"Expected {name} to be opened in binary mode ('rb'), but it reads text.")
    if not len(data):
        raise VideoDecodeError(name, "it is empty")
    return name, io.BytesIO(data)


def _download(url: str) -> bytes:
    from huggingface_hub.utils import httpx

    try:
        response = httpx.get(url, follow_redirects=True, timeout=60)
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise VideoDecodeError(url, f"the download failed ({error})", "Check the address and the network.") from error
    return response.content


def _open(name: str, target):
    import av

    if hasattr(target, "seek"):
        target.seek(0)
    try:
        container = av.open(target)
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoDecodeError(name, f"FFmpeg finds no complete video in it ({reason})") from error
    if container.format.name in _TEXT_FORMATS:
        container.close()
        raise VideoDecodeError(name, "it is a text file, not a video")
    return container


def _video_stream(name: str, container, thread_type: str, conceal_damage: bool = False):
    """The first video stream that is not a cover picture, ready to decode."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            if stream.codec_context is None:
                raise VideoDecodeError(name, "this build of FFmpeg has no decoder for its video codec")
            stream.thread_type = thread_type
            if not conceal_damage:
                stream.codec_context.options = {"err_detect": "+explode"}
            return stream
    found = ", ".join(sorted({stream.type for stream in container.streams})) or "none"
    raise VideoDecodeError(name, f"it holds no video stream (found: {found})", "Pass a file with a picture track.")


def _intact_packets(container, stream) -> Iterator[Any]:
    """The stream's packets up to where the file ends or breaks off; cut packets would decode to stale pictures."""
    import av

    is_gif = container.format.name == "gif"
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_corrupt:
                if is_gif and not bytes(packet).endswith((b"\0", b"\0;")):
                    return  # a picture's data ends in a zero; the decoder would draw a part of it
                yield packet
    except av.error.FFmpegError as error:
        logger.warning(f"{container.name}: the file breaks off ({error}); the frames before that are used.")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _decode_with_torchcodec(source, sample) -> tuple[np.ndarray, VideoMetadata]:
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise ImportError(
            'backend="torchcodec" needs the package torchcodec in a version made for this torch, and FFmpeg\'s shared '
            f'libraries; loading it failed: {_first_line(error)}. Install them, or use backend="pyav".'
        ) from error
    name, target = _resolve(source)
    with _open(name, target) as container:
        _video_stream(name, container, thread_type="AUTO")
    if hasattr(target, "seek"):
        target.seek(0)
    try:
        decoder = VideoDecoder(target, seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=0)
    except (RuntimeError, ValueError) as error:
        raise VideoDecodeError(name, _first_line(error)) from error
    return read_torchcodec(decoder, sample, name)


def read_torchcodec(decoder, sample=None, name: str = "<VideoDecoder>") -> tuple[np.ndarray, VideoMetadata]:
    """Frames and metadata, as [`decode_video`] returns them, from a `torchcodec.decoders.VideoDecoder` at hand."""
    header = decoder.metadata
    metadata = VideoMetadata(
        total_num_frames=len(decoder),
        fps=header.average_fps,
        width=header.width,
        height=header.height,
        duration=header.duration_seconds,
        video_backend="torchcodec",
    )
    indices = _frame_indices(sample, metadata, name)
    if not indices:
        return np.empty((0, header.height, header.width, 3), dtype=np.uint8), metadata
    try:
        frames = decoder.get_frames_at(indices=indices).data
    except RuntimeError as error:
        raise VideoDecodeError(name, _first_line(error)) from error
    if frames.shape[-1] != 3:  # the decoder was made with channels first
        frames = frames.permute(0, 2, 3, 1)
    frames = frames.cpu().numpy()
    metadata.height, metadata.width, metadata.frames_indices = frames.shape[1], frames.shape[2], indices
    return frames, metadata
