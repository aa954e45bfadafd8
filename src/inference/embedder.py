"""Features of videos and of their windows, and of texts to compare them with."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.video.processor import VideoProcessor

from .clips import clip_indices_of, frames_of_a_clip
from .device import find_device
from .directory import Directory
from .stream import FRAMES_AT_ONCE, Frames, Plan, Ring, Waiting, prepared_frames, run_ahead
from .windows import Window, Windows


POOLS = ("auto", "joint", "mean", "none")
DECODING_THREADS = 2
CHUNKS_AHEAD = 4
GPU_BATCH, CPU_BATCH = 16, 2
# Windows of frames that are encoded already are little work each: PE Video's base takes 0.32 s for one of two at once,
# and 0.18 s for one of eight.
CPU_BATCH_OF_ENCODED = 8
WHOLE = Windows.preset("whole")
Videos = str | os.PathLike | Sequence[str | os.PathLike]


@dataclass(frozen=True)
class Embedding:
    """Features of one window of a video, or of the whole of it.

    Attributes:
        name: the video's name among those asked for.
        embedding: (D,) float32 when pooled, else (t, h, w, D) in the model's type; on the CPU.
        grid: (t, h, w), the numbers of tokens along time, height and width; `None` for a joint embedding.
        frame_indices: the frames that the model saw.
        fps: the video's rate in frames per second, or `None` where it has none.
        window: its place among the video's windows.
        num_windows: how many the video has; where its file breaks off, one more than could be read.
        start_seconds, middle_seconds, end_seconds: as of a [`~inference.Window`].
    """

    name: str
    embedding: torch.Tensor
    grid: tuple[int, int, int] | None
    frame_indices: tuple[int, ...]
    fps: float | None
    window: int = 0
    num_windows: int = 1
    start_seconds: float | None = None
    middle_seconds: float | None = None
    end_seconds: float | None = None


@dataclass(frozen=True)
class Failure:
    """A video without features, or with those of its first windows only.

    Attributes:
        name: the video's name among those asked for.
        reason: why.
        error: what was raised; `None` where the file breaks off, and all that it holds was read.
    """

    name: str
    reason: str
    error: Exception | None = field(default=None, compare=False)


@dataclass(frozen=True)
class _Item:
    """A window whose frames are there."""

    name: str
    plan: Plan
    window: Window
    frames: list[torch.Tensor]


class VideoEmbedder:
    """A model and its video processor, ready to embed videos. [`~VideoEmbedder.from_pretrained`] makes one.

    Each frame is decoded and prepared once however many windows hold it, on threads that run ahead of the model, and
    encoded once by models that encode frames one by one. Batches fill across windows and videos.

    Args:
        model: in evaluation mode, on its device.
        processor: its video processor.
        pool: "joint" for the embedding that a video-text model compares with those of texts, of length one; "mean"
            for the mean over all tokens of a video; "none" for the tokens. "auto" is "joint" where the model has it,
            otherwise "mean".
        num_frames: frames of a clip, by default as many as the checkpoint is meant for.
        batch_size: windows of a batch; by default what fits: it is halved when a GPU has no memory left.
        source: what it was loaded from, for texts and messages.

    Raises:
        ValueError: an unknown pool, or a joint embedding that the model doesn't have.
    """

    def __init__(
        self,
        model: VideoPreTrainedModel,
        processor: VideoProcessor,
        *,
        pool: str = "auto",
        num_frames: int | None = None,
        batch_size: int | None = None,
        source: Directory | None = None,
    ):
        _check_pool(pool, type(model), source.path if source else type(model).__name__)
        self.model, self.processor, self.source = model, processor, source
        self.pool = pool if pool != "auto" else "joint" if model.has_text_tower else "mean"
        self.num_frames = num_frames or frames_of_a_clip(model, processor)
        self.waiting = Waiting()
        self._frames_at_once = FRAMES_AT_ONCE
        self._text_processor: Any = None
        # What follows `encode_frames` is the joint embedding of models with texts, and the tokens of the others.
        self._encodes_frames = model.encodes_frames_separately and model.has_text_tower == (self.pool == "joint")
        on_cpu = CPU_BATCH_OF_ENCODED if self._encodes_frames else CPU_BATCH
        self.batch_size = batch_size or (on_cpu if model.device.type == "cpu" else GPU_BATCH)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *,
        revision: str = "main",
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device | None = "auto",
        pool: str = "auto",
        num_frames: int | None = None,
        batch_size: int | None = None,
    ) -> "VideoEmbedder":
        """Load a model for its features.

        Args:
            name: what `from_pretrained` takes: a converted directory or the name of a Hub repository. Of a classifier
                the encoder alone is loaded.
            revision: branch or commit of that repository.
            dtype: type in which the model computes.
            device: where it runs; "auto" is an accelerator, if there is one.
            pool, num_frames, batch_size: as for the class.

        Raises:
            OSError: there is no such model.
            ValueError: it doesn't embed videos, has no joint embedding where that is asked for, or lacks weights.
        """
        opened = open_for_videos(name, pool, revision)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        model = opened.load_model(dtype, features_only=True)
        place = find_device(str(device) if device is not None else None)
        processor = AutoVideoProcessor.from_pretrained(name, revision=revision)
        options = {"pool": pool, "num_frames": num_frames, "batch_size": batch_size}
        return cls(model.to(place), processor, source=opened, **options)

    # ------------------------------------------------------------------------------------------------- what is asked

    def encode(self, videos: Videos) -> torch.Tensor:
        """One vector for each video, whole: a clip of `num_frames` frames as the processor spreads them.

        Args:
            videos: one or several, each as [`~vidformers.decode_video`] takes it.

        Returns:
            (videos, D) float32, on the CPU.

        Raises:
            VideoDecodeError: a video cannot be read.
            ValueError: the pool is "none", whose tokens `embed` gives.
        """
        if self.pool == "none":
            raise ValueError('encode gives one vector a video, but pool="none" keeps the tokens: call embed.')
        listed = list(videos) if isinstance(videos, (list, tuple)) else [videos]
        found = self.embed({str(number): video for number, video in enumerate(listed)})
        return torch.stack([each.embedding for each in _without_failures(found)])

    def encode_windows(
        self,
        video: str | os.PathLike,
        windows: Windows | None = None,
        *,
        seconds: float | None = None,
        step: float | None = None,
    ) -> list[Embedding]:
        """Features of the windows of a video, each with its times and frames.

        Args:
            video: as [`~vidformers.decode_video`] takes it.
            windows: how to cut it; or instead
            seconds, step: length of a window and the time from one to the next, by default the length.

        Raises:
            VideoDecodeError: the video cannot be read.
            ValueError: not one of `windows` and `seconds`.
        """
        if (windows is None) == (seconds is None):
            raise ValueError("Expected `windows`, or `seconds` with or without `step`.")
        return _without_failures(self.embed({str(video): video}, windows or Windows(seconds, step)))

    @torch.inference_mode()
    def encode_text(self, texts: str | Sequence[str]) -> torch.Tensor:
        """One vector for each text, to compare with those of videos.

        Args:
            texts: one or several.

        Returns:
            (texts, D) float32 of length one, on the CPU.

        Raises:
            ValueError: the model has no texts, or the embedder keeps other features of videos than texts compare with.
        """
        if self.pool != "joint" or self.source is None:
            kind = type(self.model).__name__
            reason = f'the pool is "{self.pool}"' if self.model.has_text_tower else f"{kind} has no text tower"
            reason = reason if self.source or self.pool != "joint" else "it was not made by from_pretrained"
            raise ValueError(
                f"This embedder has no embeddings of texts: {reason}. Load a video-text model with pool='auto', such "
                "as VideoPrismClipModel, PeVideoModel or PeCoreModel."
            )
        if self._text_processor is None:
            path, revision = self.source.path, self.source.revision
            self._text_processor = self.source.processor_class.from_pretrained(path, revision=revision)
        inputs = self._text_processor(text=[texts] if isinstance(texts, str) else list(texts), return_tensors="pt")
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        found = self.model.embed_texts(inputs["input_ids"], inputs.get("attention_mask"))
        return torch.nn.functional.normalize(found.float(), dim=-1).cpu()

    def settled(self, windows: Windows) -> Windows:
        """Windows with the number of frames that the model is meant for, where they are in seconds and name none."""
        if windows.num_frames is None and windows.unit == "seconds" and not windows.is_whole:
            return replace(windows, num_frames=self.num_frames)
        return windows

    def embed(
        self,
        videos: Mapping[str, str | os.PathLike],
        windows: Windows = WHOLE,
        *,
        done: Mapping[str, int] | None = None,
    ) -> Iterator[Embedding | Failure]:
        """Embed videos one after the other, window after window.

        Args:
            videos: a name for each video, and what [`~vidformers.decode_video`] takes.
            windows: how to cut them; "whole" lets the processor spread `num_frames` frames over the video.
            done: by name, how many first windows of a video to leave out.

        Yields:
            The features of each window in order, and a `Failure` for a video that cannot be embedded, or not to its
            end.
        """
        settled, ring = self.settled(windows), Ring()
        tasks = (
            partial(prepared_frames, video, partial(self._cut, settled), self.processor, (done or {}).get(name, 0))
            for name, video in videos.items()
        )
        pending: deque[_Item | Failure] = deque()
        ahead = run_ahead(tasks, DECODING_THREADS, CHUNKS_AHEAD, self.waiting)
        with closing(ahead):
            for name, events in zip(videos, ahead, strict=True):
                for item in self._items_or_failure(name, events, ring):
                    pending.append(item)
                    if len(pending) >= self.batch_size:
                        yield from self._run(pending, self.batch_size)
        yield from self._run(pending, 1)

    # ------------------------------------------------------------------------------------------------ how it is done

    def _cut(self, windows: Windows, metadata: VideoMetadata) -> list[Window]:
        """A video's windows. The whole is one clip, with the frames that the processor chooses."""
        if not windows.is_whole or windows.num_frames is not None:
            return windows(metadata)
        indices = tuple(clip_indices_of(self.processor, self.num_frames, metadata).tolist())
        try:
            (whole,) = windows(metadata)
        except ValueError:  # neither times nor a rate are known
            return [Window(0, indices, math.nan, math.nan, math.nan)]
        return [replace(whole, frame_indices=indices)]

    def _items_or_failure(self, name: str, events: Iterator[Plan | Frames], ring: Ring) -> Iterator[_Item | Failure]:
        try:
            yield from self._items(name, events, ring)
        except (OSError, ValueError) as error:
            yield Failure(name, str(error), error)

    @torch.inference_mode()
    def _items(self, name: str, events: Iterator[Plan | Frames], ring: Ring) -> Iterator[_Item | Failure]:
        plan: Plan | None = None
        for event in events:
            if isinstance(event, Plan):
                plan = event
                ring.begin(plan)
                continue
            frames = event.pixels
            if self._encodes_frames:
                frames, self._frames_at_once = _in_parts_that_fit(self._encoded, frames, self._frames_at_once)
            for window, kept in ring.add(event.indices, frames):
                yield _Item(name, plan, window, kept)
        if plan is not None and plan.break_off:
            yield Failure(name, plan.break_off)
        elif plan is not None and not plan.total:
            raise ValueError(f"{name}: no window fits, since the video is shorter and edge='drop' leaves such out.")

    def _run(self, pending: deque, until: int) -> Iterator[Embedding | Failure]:
        """Empty `pending` from its beginning until fewer than `until` are left, a batch of equal shapes at a time."""
        while pending and len(pending) >= until:
            if isinstance(pending[0], Failure):
                yield pending.popleft()
                continue
            batch: list[_Item] = [pending.popleft()]
            while pending and len(batch) < self.batch_size and _fits(pending[0], batch[0]):
                batch.append(pending.popleft())
            clips = [item.frames for item in batch]
            features, self.batch_size = _in_parts_that_fit(self._features, clips, self.batch_size)
            for item, feature in zip(batch, features):
                yield self._embedding(item, feature)

    def _encoded(self, frames: torch.Tensor) -> torch.Tensor:
        """What the model keeps of each of some frames, (frames, …), of their pixels (frames, C, H, W)."""
        return self.model.encode_frames(frames[None].to(self.model.device, self.model.dtype))[0]

    @torch.inference_mode()
    def _features(self, clips: list[list[torch.Tensor]]) -> torch.Tensor:
        """(B, D) or, for the pools of tokens, (B, t, h, w, D) of clips that are lists of frames."""
        batch = torch.stack([torch.stack(frames) for frames in clips]).to(self.model.device, self.model.dtype)
        if self._encodes_frames:
            features = self.model.encode_clip(batch)
        elif self.pool == "joint":
            features = self.model.embed_videos(batch)
        else:
            features = self.model.get_feature_map(batch)
        return features.cpu()

    def _embedding(self, item: _Item, features: torch.Tensor) -> Embedding:
        grid, window = None, item.window
        if self.pool == "joint":
            features = torch.nn.functional.normalize(features.float(), dim=0)
        else:
            grid = tuple(features.shape[:3])
            features = features.float().mean((0, 1, 2)) if self.pool == "mean" else features.clone()
        span = self.model.frames_per_token
        seen = window.frame_indices[: max(len(item.frames) // span * span, 1)]
        times = window.start_seconds, window.middle_seconds, window.end_seconds
        return Embedding(
            item.name, features, grid, seen, item.plan.metadata.fps, window.number, item.plan.total, *times
        )


def _fits(item: _Item | Failure, first: _Item) -> bool:
    """Whether an item can be stacked with the first of a batch."""
    if isinstance(item, Failure) or len(item.frames) != len(first.frames):
        return False
    return item.frames[0].shape == first.frames[0].shape


def _in_parts_that_fit(
    run: Callable[[Sequence], torch.Tensor], items: Sequence, at_once: int
) -> tuple[torch.Tensor, int]:
    """Run some items at once and the next ones after them, fewer at a time whenever the memory does not suffice.

    Args:
        run: from items to a tensor with a row for each.
        items: at least one.
        at_once: how many to begin with.

    Returns:
        The rows of all items, and how many fitted at once.

    Raises:
        MemoryError: a single one doesn't fit.
    """
    rows: list[torch.Tensor] = []
    done = 0
    while done < len(items):
        try:
            rows.append(run(items[done : done + at_once]))
            done += at_once
            continue
        except torch.OutOfMemoryError as error:
            reason = str(error)
        # Out of the handler, whose error holds on to what did not fit.
        at_once = min(at_once, len(items) - done)
        if at_once == 1:
            raise MemoryError(
                f"The memory of the device does not suffice for one window of a video ({reason}). Take fewer frames "
                "(num_frames), a smaller dtype or another device."
            )
        at_once = (at_once + 1) // 2
    return rows[0] if len(rows) == 1 else torch.cat(rows), at_once


def open_for_videos(name: str | os.PathLike, pool: str, revision: str = "main") -> Directory:
    """Open the directory of a model that embeds videos.

    Args:
        name, revision: what `from_pretrained` takes.
        pool: what is to be kept of a video.

    Raises:
        OSError: there is no such model.
        ValueError: it doesn't embed videos, or has no joint embedding where that is asked for.
    """
    opened = Directory.open_for_videos(name, revision)
    _check_pool(pool, opened.model_class, name)
    return opened


def _check_pool(pool: str, model_class: type[VideoPreTrainedModel], name: str | os.PathLike) -> None:
    if pool not in POOLS:
        raise ValueError(f"Expected pool {', '.join(map(repr, POOLS))}, got {pool!r}.")
    if pool == "joint" and not model_class.has_text_tower:
        raise ValueError(f"{name}: {model_class.__name__} has no joint embedding of videos and texts.")


def _without_failures(results: Iterable[Embedding | Failure]) -> list[Embedding]:
    """The embeddings; the error of a failure that has one is raised."""
    found: list[Embedding] = []
    for each in results:
        if isinstance(each, Embedding):
            found.append(each)
        elif each.error is not None:
            raise each.error
    return found
