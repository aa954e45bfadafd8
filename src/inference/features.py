"""Features of many videos. Videos are decoded ahead on threads while the model works."""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from .clips import frames_of_a_clip, read_clip
from .device import find_device
from .directory import Directory


POOLS = ("auto", "joint", "mean", "none")
DECODING_THREADS = 2


@dataclass(frozen=True)
class Embedding:
    """Features of one video.

    Attributes:
        name: the video's name among those asked for.
        features: (D,) float32 when pooled, else (t, h, w, D) in the model's type; on the CPU.
        grid: (t, h, w), the numbers of tokens along time, height and width; `None` for a joint embedding.
        frame_indices: the frames that the model saw.
        fps: the video's rate in frames per second, or `None` where it has none.
    """

    name: str
    features: torch.Tensor
    grid: tuple[int, int, int] | None
    frame_indices: tuple[int, ...]
    fps: float | None

    @property
    def record(self) -> dict[str, Any]:
        """What is stored beside the features."""
        return {"grid": self.grid, "fps": self.fps, "frame_indices": self.frame_indices}


@dataclass(frozen=True)
class Failure:
    """A video without features, and why."""

    name: str
    reason: str


class Embedder:
    """A directory's model and video processor, ready to embed videos.

    Args:
        directory: what `from_pretrained` takes: a converted directory or the name of a Hub repository. Of a
            classifier the encoder alone is loaded.
        pool: "joint" for the embedding that a video-text model compares with those of texts, of length one; "mean"
            for the mean over all tokens of a video; "none" for the tokens. "auto" is "joint" where the model has it,
            otherwise "mean".
        num_frames: frames of a clip, spread over the video as the processor does; by default as many as the
            checkpoint is meant for. A shorter video repeats frames or gives all it has, as the processor does.
        device: where the model runs; by default the first GPU, if there is one.
        dtype: type in which the model computes.

    Raises:
        ValueError: the directory's model doesn't embed videos, has no joint embedding where that is asked for, or
            lacks weights.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        pool: str = "auto",
        num_frames: int | None = None,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        if pool not in POOLS:
            raise ValueError(f"Expected pool {', '.join(map(repr, POOLS))}, got {pool!r}.")
        opened = Directory.open(directory)
        name, joint = opened.model_class.__name__, opened.model_class.has_text_tower
        if opened.input == "text":
            raise ValueError(f"{directory}: {name} does not embed videos; it takes {opened.input}.")
        if pool == "joint" and not joint:
            raise ValueError(f"{directory}: {name} has no joint embedding of videos and texts.")
        self.pool = pool if pool != "auto" else "joint" if joint else "mean"
        place = find_device(device)
        self.model = opened.load_model(dtype, features_only=True).to(place)
        self.processor = AutoVideoProcessor.from_pretrained(directory)
        self.num_frames = num_frames or frames_of_a_clip(self.model, self.processor)

    def embed(self, videos: Mapping[str, str | os.PathLike]) -> Iterator[Embedding | Failure]:
        """Embed videos one after the other, in order.

        Args:
            videos: a name for each video, and what [`~vidformers.decode_video`] takes.

        Yields:
            The features of each, or a `Failure` for one that cannot be embedded.
        """
        waiting: deque[tuple[str, Future]] = deque()
        remaining = iter(videos.items())
        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            while True:
                while len(waiting) <= DECODING_THREADS and (item := next(remaining, None)):
                    waiting.append((item[0], pool.submit(self._load, item[1])))
                if not waiting:
                    return
                name, loaded = waiting.popleft()
                try:
                    yield self._embed(name, *loaded.result())
                except (OSError, ValueError) as error:
                    yield Failure(name, str(error))

    def _load(self, source: str | os.PathLike) -> tuple[torch.Tensor, VideoMetadata]:
        """Pixels (1, T, C, H, W) of the chosen frames, and the metadata that tells which they are."""
        frames, metadata = read_clip(source, self.processor, self.num_frames)
        inputs = self.processor(frames, do_sample_frames=False, return_tensors="pt")
        return inputs[self.processor.model_input_names[0]], metadata

    @torch.inference_mode()
    def _embed(self, name: str, pixels: torch.Tensor, metadata: VideoMetadata) -> Embedding:
        pixels, grid = pixels.to(self.model.device, self.model.dtype), None
        if self.pool == "joint":
            features = torch.nn.functional.normalize(self.model.embed_videos(pixels)[0].float(), dim=0)
        else:
            features = self.model.get_feature_map(pixels)[0]  # (t, h, w, D)
            grid = tuple(features.shape[:3])
            features = features.float().mean((0, 1, 2)) if self.pool == "mean" else features
        span = self.model.frames_per_token
        seen = metadata.frames_indices[: max(pixels.shape[1] // span * span, 1)]
        return Embedding(name, features.cpu(), grid, tuple(seen), metadata.fps)
