"""Features of many videos in one file: what the command `vidformers embed` does."""

import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from vidformers.files import check_target, explained_write, written_whole
from vidformers.inference.clips import find_videos
from vidformers.inference.features import Embedder, Embedding, Failure


OUTPUT_SUFFIXES = (".safetensors", ".npz")


def embed_files(
    paths: Sequence[str | os.PathLike],
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    pool: str = "auto",
    num_frames: int | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[str, int, int], None] = lambda activity, done, total: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> tuple[int, int]:
    """Write the features of videos to one file. A video that cannot be read costs its own features only.

    Args:
        paths: files and folders, as for [`~vidformers.inference.clips.find_videos`].
        model: a model's directory, or the name of a repository on the Hub.
        out: the file to write, .safetensors or .npz. Without any features there is none.
        pool, num_frames, device, dtype: as for [`~vidformers.inference.features.Embedder`].
        progress: called with an activity and how much of it is done.
        on_failure: called with every video that cannot be embedded.

    Returns:
        Numbers of the videos that were embedded and of all videos.

    Raises:
        OSError: there is no such model, or the file cannot be written.
        ValueError: the output's name, a path or the model doesn't serve.
    """
    check_output(out)
    files, done = find_videos(paths), []
    progress("loading the model", 0, 1)
    embedder = Embedder(model, pool, num_frames, device, dtype)
    progress("loading the model", 1, 1)
    for number, result in enumerate(embedder.embed(files), start=1):
        if isinstance(result, Failure):
            on_failure(result)
        else:
            done.append(result)
        progress("embedding videos", number, len(files))
    if done:
        write_embeddings(out, done, model=str(model), pool=embedder.pool, num_frames=embedder.num_frames)
    return len(done), len(files)


def check_output(path: str | os.PathLike) -> Path:
    """The path of a file to write, once it is known that it can be: ValueError otherwise."""
    path = Path(path)
    if path.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"{path}: the name must end in {' or '.join(OUTPUT_SUFFIXES)}.")
    return check_target(path)


def write_embeddings(path: str | os.PathLike, embeddings: Sequence[Embedding], **about: Any) -> None:
    """Write features under their videos' names, and beside them a JSON text with what they are.

    The text holds `about` and, as "videos", the record of each video. In a safetensors file it is the entry
    "embeddings" of the metadata, in an npz file the array "__metadata__". npz has no bfloat16: float32 stands in.

    Args:
        path: the file, .safetensors or .npz; it takes its name once it is whole.
        embeddings: what to write.
        **about: what the videos have in common, such as the model's name.

    Raises:
        OSError: the file cannot be written. Nothing is left behind then.
    """
    path = check_output(path)
    text = json.dumps({**about, "videos": {item.name: item.record for item in embeddings}})
    tensors = {item.name: item.features.contiguous() for item in embeddings}
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    with written_whole(path) as (place,), explained_write(path, num_bytes):
        if path.suffix == ".npz":
            arrays = {name: _to_numpy(tensor) for name, tensor in tensors.items()}
            _write_npz(place, {**arrays, "__metadata__": np.array(text)})
        else:
            save_file(tensors, place, metadata={"format": "pt", "embeddings": text})


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An npz file with keys of any kind; `np.savez` takes them for its own arguments where they are alike."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
