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
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers.utils import logging

from .decoder import Damage, FrameDecoder, IndexMismatch
from .index import (
    FrameIndex,
    Packets,
    build_index,
    frames_before_gap,
    has_times,
    promises_picture,
    rate_and_duration,
)
from .metadata import Sample, VideoFileMetadata, checked_indices
from .rgb import RgbConverter, display_matrix, swaps_axes
from .source import VideoDecodeError, VideoLimits, VideoSource, too_many_packets, video_stream


logger = logging.get_logger(__name__)


class VideoReader:
    """One video, indexed; decodes frames with PyAV. A reader of a path can be pickled and sent to workers.

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
        self._decoder = FrameDecoder(self.source)
        self._conceals = False
        packets = self._demux()
        self.index: FrameIndex | None = None
        if self._timed and packets:
            self.index = build_index(packets, self._codec, self._format, self._decoder.breaks_off)
        if self.index is None or not self.index.is_promised.all():
            self.rebuild_index()
        else:
            self._set_metadata(self.index.frame_pts, self.index.last_duration)
            self._warn_of_end()

    @property
    def num_decoded_packets(self) -> int:
        """Packets given to the decoder so far."""
        return self._decoder.num_decoded_packets

    @property
    def break_off(self) -> str | None:
        """Where the file breaks off, in words; `None` where nothing is known to be lacking."""
        if not self._decoder.breaks_off:
            return None
        last = self.metadata.total_num_frames - 1
        return f"the file breaks off after frame {last}{self._time_of(last)}; what follows is lacking."

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
            except IndexMismatch as mismatch:
                self.distrust(mismatch)

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
        for index, frame in itertools.chain(self.pictures(sorted(places)), [(None, None)]):
            for number in {number for number, _ in places.get(index, ())}:
                if number not in buffers:
                    buffers[number] = np.empty((len(chosen[number]), *shape), dtype=np.uint8)
                missing[number] -= 1
            for number, slot in places.pop(index, ()):
                buffers[number][slot] = frame
            del frame  # so that the next one takes its memory
            while following < len(chosen) and not missing[following]:
                frames = buffers.pop(following, np.empty((0, *shape), dtype=np.uint8))
                yield frames, self.metadata.choosing(chosen[following])
                following += 1

    def frame_indices(self, sample: Sample) -> list[int]:
        """The frame numbers that a sample stands for.

        Args:
            sample: as for [`~vidformers.video.VideoReader.read`].

        Raises:
            ValueError: they aren't a flat sequence of integers.
            IndexError: one lies outside the video.
        """
        return checked_indices(sample, self.metadata, self.name)

    def pictures(self, frame_indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames without keeping any, which takes the memory of a few however long the video is.

        Args:
            frame_indices: their numbers, ascending, each once.

        Yields:
            The number and the upright RGB picture, uint8 (height, width, 3), of each, in the order of the file.

        Raises:
            IndexMismatch: the file's packets did not keep what they promise. After [`~VideoReader.distrust`] the
                metadata is right, which may tell of fewer frames; begin again with those that it has.
            VideoDecodeError: a frame cannot be had.
        """
        if not len(frame_indices):
            return
        wanted = {int(index) for index in frame_indices}
        last, to_rgb = max(wanted), RgbConverter(self.name, self.metadata, self._matrix)
        if self.index is None:
            decoded = ((index, frame) for index, _, frame in self._decoder.decode_linear(last))
        elif self._conceals:
            decoded = self._decoder.decode_concealing(self.index, last)
        else:
            decoded = self._decoder.decode_seeking(self.index, sorted(wanted))
        for index, frame in decoded:
            if index in wanted:
                wanted.discard(index)
                yield index, to_rgb(frame, index)
        if wanted:
            total = self.metadata.total_num_frames
            raise VideoDecodeError(self.name, f"frame {min(wanted)} of {total} could not be decoded")

    def distrust(self, mismatch: IndexMismatch) -> None:
        """Look at a file again whose packets did not keep what they promise.

        Args:
            mismatch: what [`~VideoReader.pictures`] raised.
        """
        logger.info(f"{self.name}: {mismatch}; decoding from the start.")
        if isinstance(mismatch, Damage) or len(self.index.keyframe_positions) == 1:
            self.rebuild_index()
        else:
            self.index = replace(self.index, keyframe_positions=np.zeros(1, dtype=np.int64))

    # ------------------------------------------------------------------------------------ which frames there are

    def _demux(self) -> Packets | None:
        """All packets, and the size and orientation of the first frame, for which a few are decoded."""
        rows = []
        with self.source.open() as container:
            stream = video_stream(self.source, container, thread_type="SLICE", strict=False)
            self._codec = stream.codec.canonical_name
            self._time_base, self._header_rate = stream.time_base, stream.average_rate
            extradata = stream.codec_context.extradata
            promises = promises_picture(self._codec, extradata)
            first_frame, limit = None, self.source.limits.packets
            for packet in itertools.chain(self._decoder.packets(container, stream), [None]):
                if packet is not None:
                    is_intact = not packet.is_corrupt and promises(packet)
                    times = packet.pts, packet.dts, packet.duration
                    rows.append((*times, packet.is_keyframe, packet.is_discard, is_intact, packet.pos))
                    if len(rows) > limit:
                        raise too_many_packets(self.source, len(rows))
                if first_frame is None:
                    first_frame = next(iter(self._decoder.feed(stream, packet) or ()), None)
            if first_frame is None:
                cause = "it contains no frame that can be decoded" if rows else "its video stream is empty"
                raise VideoDecodeError(self.name, cause)
            self._format = container.format.name
            self._timed = has_times(self._codec, self._format, stream.codec_context.reorder_depth)
            packets = Packets(*zip(*rows)) if rows else None
            self._decoder.breaks_off |= _ends_early(container, stream, packets)
        # The whole video is turned as its first frame. Asking a frame for its matrix would keep it from being freed.
        self._matrix = display_matrix(first_frame)
        size = (first_frame.height, first_frame.width)
        self._shape = size[::-1] if swaps_axes(self._matrix) else size
        return packets

    def rebuild_index(self) -> None:
        """Find the frames by decoding all of them; from then on they are decoded from the start.

        Where times of packets tell the frames of a damaged file, they still number them, so that one that is lost
        moves no other. Elsewhere the frames that come out are counted.
        """
        packets, self.index, self._decoder.strict = self.index, None, True
        damaged: dict[int, int | None] = {}
        shown = [(number, frame.opaque) for _, number, frame in self._decoder.decode_linear(damaged=damaged)]
        last_intact = max((number for number, _ in shown if number not in damaged), default=-1)
        if damaged:
            # The decoder drops what it finds damaged only when asked to; a player shows it.
            self._decoder.strict = False
            shown = [(number, frame.opaque) for _, number, frame in self._decoder.decode_linear()]
        by_time = packets is not None and packets.numbers(shown, min(damaged, default=None))
        if by_time:
            shown = sorted(dict(shown).items(), key=lambda frame: frame[1])
            damaged |= packets.lacking(number for number, _ in shown)
        cut = {number: pts for number, pts in damaged.items() if number > last_intact}
        self._decoder.breaks_off |= bool(cut)
        shown = shown[: _frames_before_cut(shown, cut)]
        frame_pts = [pts for _, pts in shown]
        in_order = None not in frame_pts and all(b > a for a, b in itertools.pairwise(frame_pts))
        if in_order and self._decoder.breaks_off:
            shown = shown[: frames_before_gap(np.array(frame_pts))]
            frame_pts = frame_pts[: len(shown)]
        if not shown:
            raise VideoDecodeError(self.name, "it contains no frame that can be decoded")
        if by_time:
            positions = [*damaged, *(number for number, _ in shown)]
            self.index, self._conceals = packets.counting(positions, frame_pts[-1]), True
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
        packets = "1 damaged packet" if len(damaged) == 1 else f"{len(damaged)} damaged packets"
        first = next((index for index, (number, _) in enumerate(shown) if number >= min(damaged)), len(shown))
        logger.warning(
            f"{self.name}: {packets}, the first at frame {first}{self._time_of(first)}. The frames that come "
            "of them are the decoder's best guess, and the one before stands for one that is lost, as in a player."
        )

    def _warn_of_end(self) -> None:
        if self.break_off:
            logger.warning(f"{self.name}: {self.break_off}")

    def _time_of(self, index: int) -> str:
        times = self.metadata.frame_seconds
        return "" if times is None or index >= len(times) else f" ({times[index]:.2f} s)"


def _ends_early(container: Any, stream: Any, packets: Packets | None) -> bool:
    """Whether the header announces more than the file holds, or its last packet is cut."""
    if packets is None:
        return False
    name = container.format.name
    if "mp4" in name:
        return stream.frames > len(packets.pts)
    times = [pts for pts in packets.pts if pts is not None]
    if "matroska" in name and container.duration and times:
        end = (max(times) + 2 * (packets.duration[-1] or 0)) * stream.time_base
        return end + 0.1 < container.duration / 1_000_000
    return False


def _frames_before_cut(shown: Sequence[tuple[int, int | None]], cut: dict[int, int | None]) -> int:
    """How many of the frames that come out come before any of a cut packet, by order and by time."""
    first_lost = min((pts for pts in cut.values() if pts is not None), default=math.inf)
    for index, (number, pts) in enumerate(shown):
        if number in cut or (pts is not None and pts > first_lost):
            return index
    return len(shown)
