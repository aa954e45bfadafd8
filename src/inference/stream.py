"""Frames of many videos, decoded and prepared ahead on threads, each once however many windows hold it."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any, TypeVar

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from vidformers.video.decoder import IndexMismatch
from vidformers.video.processor import VideoProcessor
from vidformers.video.reader import VideoReader

from .windows import Window


FRAMES_AT_ONCE = 16
BYTES_AT_ONCE = 2**25
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """The windows of a video that are still to come. Frames that came before are forgotten.

    Attributes:
        metadata: of the video.
        windows: in order.
        total: number of all windows of the video; where its file breaks off, one more than there are.
        break_off: where it breaks off, in words.
    """

    metadata: VideoMetadata
    windows: list[Window]
    total: int
    break_off: str | None = None


@dataclass(frozen=True)
class Frames:
    """Some frames of a video.

    Attributes:
        indices: their numbers.
        pixels: (frames, C, H, W), as the model takes them.
    """

    indices: list[int]
    pixels: torch.Tensor


def prepared_frames(
    source: Any, cut: Callable[[VideoMetadata], list[Window]], processor: VideoProcessor, done: int = 0
) -> Iterator[Plan | Frames]:
    """Decode and prepare the frames that a video's windows hold, each once, a few at a time.

    Args:
        source: what [`~vidformers.decode_video`] takes.
        cut: from the video's metadata to its windows; asked again where the file turns out to be damaged.
        processor: the model's.
        done: how many first windows to leave out.

    Raises:
        VideoDecodeError: the video cannot be read.
    """
    reader = VideoReader(source)
    frame_bytes = 3 * reader.metadata.height * reader.metadata.width
    at_once = min(max(BYTES_AT_ONCE // frame_bytes, 1), FRAMES_AT_ONCE)
    while True:
        windows = cut(reader.metadata)
        total = len(windows) + (reader.break_off is not None)
        plan = Plan(reader.metadata, windows[done:], total, reader.break_off)
        yield plan
        sent: set[int] = set()
        try:
            for frames in _chunks(reader.pictures(_needed(plan.windows)), at_once):
                yield Frames(frames[0], _prepare(frames[1], processor))
                sent.update(frames[0])
            return
        except IndexMismatch as mismatch:
            complete = (sent.issuperset(window.frame_indices) for window in plan.windows)
            done += next((number for number, each in enumerate(complete) if not each), len(plan.windows))
            reader.distrust(mismatch)


def _needed(windows: list[Window]) -> np.ndarray:
    return np.unique(np.concatenate([window.frame_indices for window in windows])) if windows else np.empty(0, int)


def _chunks(pictures: Iterator[tuple[int, np.ndarray]], size: int) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Numbers and pictures, `size` at a time; what was decoded before an error comes before it."""
    indices, frames = [], []
    try:
        for index, picture in pictures:
            indices.append(index)
            frames.append(picture)
            if len(frames) == size:
                yield indices, frames
                indices, frames = [], []
    except IndexMismatch:
        if frames:
            yield indices, frames
        raise
    if frames:
        yield indices, frames


def _prepare(frames: list[np.ndarray], processor: VideoProcessor) -> torch.Tensor:
    inputs = processor(np.stack(frames), do_sample_frames=False, return_tensors="pt")
    return inputs[processor.model_input_names[0]][0]


class Ring:
    """Frames of a video from the first that a coming window holds, and the windows that they complete."""

    def __init__(self):
        self.frames: dict[int, torch.Tensor] = {}
        self.windows: deque[Window] = deque()

    def begin(self, plan: Plan) -> None:
        """Forget all frames, and wait for these windows."""
        self.frames.clear()
        self.windows = deque(plan.windows)

    def add(self, indices: list[int], frames: torch.Tensor) -> Iterator[tuple[Window, list[torch.Tensor]]]:
        """Take frames, and give the windows that are complete now with theirs.

        Args:
            indices: numbers of the frames.
            frames: (frames, …), what is kept of each.
        """
        self.frames.update(zip(indices, frames))
        while self.windows and all(index in self.frames for index in self.windows[0].frame_indices):
            window = self.windows.popleft()
            yield window, [self.frames[index] for index in window.frame_indices]
            first = self.windows[0].frame_indices[0] if self.windows else max(indices) + 1
            for index in [index for index in self.frames if index < first]:
                del self.frames[index]


class Waiting:
    """How long a loop waited for what threads prepare, in seconds."""

    def __init__(self):
        self.seconds = 0.0


def run_ahead(
    tasks: Iterable[Callable[[], Iterator[T]]], threads: int, depth: int, waiting: Waiting
) -> Iterator[Iterator[T]]:
    """Run generators ahead on threads, in order: what each gives, and raises, comes as if it ran here.

    Args:
        tasks: functions that begin one each.
        threads: how many run at once.
        depth: how many items of each may lie ready.
        waiting: counts the time that the caller waits.

    Yields:
        For each task an iterator, to be used up before the next.
    """
    stop, channels, remaining = threading.Event(), deque(), iter(tasks)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="vidformers-decoding")
    try:
        while True:
            while len(channels) <= threads and (task := next(remaining, None)):
                channels.append(Queue(depth))
                pool.submit(_fill, task, channels[-1], stop)
            if not channels:
                return
            yield _drain(channels.popleft(), waiting)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


_END = object()


def _fill(task: Callable[[], Iterator[Any]], channel: Queue, stop: threading.Event) -> None:
    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                channel.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    try:
        for item in task():
            if not put((item, None)):
                return
        put((_END, None))
    except BaseException as error:
        put((_END, error))


def _drain(channel: Queue, waiting: Waiting) -> Iterator[Any]:
    while True:
        start = time.perf_counter()
        item, error = channel.get()
        waiting.seconds += time.perf_counter() - start
        if error is not None:
            raise error
        if item is _END:
            return
        yield item
