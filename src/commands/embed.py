"""Features of many videos in one file: what the command `vidformers embed` does.

Videos are decoded ahead on threads while the model works. One that cannot be read costs its own features only.
"""

import json
import os
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from .inference import Directory, any_size, frames_of_a_clip, read_clip


# What a folder is searched for. Files that are named themselves may end in anything.
VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
POOLS = ("auto", "joint", "mean", "none")
OUTPUT_SUFFIXES = (".safetensors", ".npz")
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


def find_videos(paths: Sequence[str | os.PathLike]) -> dict[str, Path]:
    """Name the videos among files and folders.

    Args:
        paths: files, taken whatever their suffix, and folders, searched with all that is below them for
            `VIDEO_SUFFIXES`.

    Returns:
        File for each name: its file name, or, if several files have that, its path as given.

    Raises:
        ValueError: a folder without a video, or a file given twice.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
        if path.is_dir() and not inside:
            raise ValueError(f"{path}: holds no video (looked for {' '.join(sorted(VIDEO_SUFFIXES))}).")
        files += inside if path.is_dir() else [path]
    twice = sorted({str(file) for file in files if files.count(file) > 1})
    if twice:
        raise ValueError(f"given more than once: {', '.join(twice)}.")
    names = [file.name for file in files]
    return {file.name if names.count(file.name) == 1 else file.as_posix(): file for file in files}


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
        self.model = _load_encoder(directory, dtype)
        joint = hasattr(self.model, "get_video_features")
        if pool == "joint" and not joint:
            raise ValueError(f"{directory}: {type(self.model).__name__} has no joint embedding of videos and texts.")
        self.pool = pool if pool != "auto" else "joint" if joint else "mean"
        self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.processor = AutoVideoProcessor.from_pretrained(directory)
        self.num_frames = num_frames or frames_of_a_clip(self.processor, self.model.config)

    def embed(self, videos: Mapping[str, str | os.PathLike]) -> Iterator[Embedding | Failure]:
        """Embed videos one after the other, in order; those that cannot be embedded come as a `Failure`."""
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

    def _load(self, source: str | os.PathLike) -> tuple[torch.Tensor, Any]:
        """Pixels (1, T, C, H, W) of the chosen frames, and the metadata that tells which they are."""
        frames, metadata = read_clip(source, self.processor, self.num_frames)
        inputs = self.processor(frames, do_sample_frames=False, return_tensors="pt")
        return inputs[self.processor.model_input_names[0]], metadata

    @torch.inference_mode()
    def _embed(self, name: str, pixels: torch.Tensor, metadata: Any) -> Embedding:
        pixels, grid = pixels.to(self.model.device, self.model.dtype), None
        if self.pool == "joint":
            features = self.model.get_video_features(pixels, **any_size(self.model)).pooler_output[0].float()
            features = features / features.norm()
        else:
            features = self.model.get_feature_map(pixels)[0]  # (t, h, w, D)
            grid = tuple(features.shape[:3])
            features = features.float().mean((0, 1, 2)) if self.pool == "mean" else features
        frames_a_token = np.ravel(getattr(self.model.config, "tubelet_size", 1))[0]
        seen = metadata.frames_indices[: max(pixels.shape[1] // frames_a_token * frames_a_token, 1)]
        return Embedding(name, features.cpu(), grid, tuple(seen), metadata.fps)


def _load_encoder(path: str | os.PathLike, dtype: torch.dtype) -> PreTrainedModel:
    """The base model of a directory, in evaluation mode, without parts that features don't need."""
    directory = Directory.open(path)
    if hasattr(directory.config, "use_predictor"):
        directory.config.use_predictor = False
    model = directory.load_model(dtype)
    if not hasattr(model, "get_feature_map"):
        raise ValueError(f"{path}: {type(model).__name__} does not embed videos.")
    return model


def check_output(path: str | os.PathLike) -> Path:
    """The path of a file to write, once it is known that it can be: ValueError otherwise."""
    path = Path(path)
    if path.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"{path}: the name must end in {' or '.join(OUTPUT_SUFFIXES)}.")
    if path.exists():
        raise ValueError(f"{path}: exists already; remove it or choose another name.")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}.")
    return path


def write_embeddings(path: str | os.PathLike, embeddings: Sequence[Embedding], **about: Any) -> None:
    """Write features under their videos' names, and beside them a JSON text with what they are.

    The text holds `about` and, as "videos", the record of each video. In a safetensors file it is the entry
    "embeddings" of the metadata, in an npz file the array "__metadata__". npz has no bfloat16: float32 stands in.

    Args:
        path: the file, .safetensors or .npz; it takes its name once it is whole.
        embeddings: what to write.
        **about: what the videos have in common, such as the model's name.
    """
    path = check_output(path)
    text = json.dumps({**about, "videos": {item.name: item.record for item in embeddings}})
    tensors = {item.name: item.features.contiguous() for item in embeddings}
    unfinished = path.with_name(f".{path.name}.unfinished-{os.getpid()}")
    try:
        if path.suffix == ".npz":
            arrays = {name: _to_numpy(tensor) for name, tensor in tensors.items()}
            _write_npz(unfinished, {**arrays, "__metadata__": np.array(text)})
        else:
            save_file(tensors, unfinished, metadata={"format": "pt", "embeddings": text})
        os.replace(unfinished, path)
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error}).") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An npz file with keys of any kind; `np.savez` takes them for its own arguments where they are alike."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
