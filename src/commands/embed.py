"""Features of many videos in a file or a folder: what the command `vidformers embed` does."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from vidformers.inference.clips import find_videos
from vidformers.inference.embedder import WHOLE, Embedding, Failure, VideoEmbedder
from vidformers.inference.files import FeatureFile, FeatureFolder
from vidformers.inference.windows import Windows


LAYOUTS = ("npy",)


def embed_files(
    paths: Sequence[str | os.PathLike],
    model: str | os.PathLike,
    out: str | os.PathLike,
    *,
    windows: Windows = WHOLE,
    pool: str = "auto",
    num_frames: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    layout: str | None = None,
    progress: Callable[[str, int, int], None] = lambda activity, done, total: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> tuple[int, int]:
    """Write the features of videos. A video that cannot be read costs its own features only.

    A file takes its name once all videos are done. A folder gets the files of a video as soon as it is done, so that
    another run goes on.

    Args:
        paths: files and folders, as for [`~vidformers.inference.clips.find_videos`].
        model: a model's directory, or the name of a repository on the Hub.
        out: the file to write, .safetensors or .npz; or, with a layout, a folder. Without any features there is none.
        windows: how to cut videos, by default one clip of the whole video.
        layout: "npy" for a .npy and a .json a video.
        pool, num_frames, batch_size, device, dtype: as for [`~VideoEmbedder.from_pretrained`].
        progress: called with an activity and how much of it is done.
        on_failure: called with every video that cannot be embedded to its end.

    Returns:
        Numbers of the videos that have features and of all videos.

    Raises:
        OSError: there is no such model, or the output cannot be written.
        ValueError: the output's name, a path or the model doesn't serve.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"Expected layout {', '.join(LAYOUTS)}, got {layout!r}.")
    files = find_videos(paths) if layout else None
    sink = FeatureFolder(out, list(files)) if files else FeatureFile(out, windows.is_whole)
    files = files or find_videos(paths)
    todo = {name: path for name, path in files.items() if not (layout and sink.has(name))}
    if not todo:
        return len(files), len(files)
    progress("loading the model", 0, 1)
    options = {"pool": pool, "num_frames": num_frames, "batch_size": batch_size}
    embedder = VideoEmbedder.from_pretrained(model, dtype=dtype, device=device, **options)
    if layout and embedder.pool == "none":
        raise ValueError('The layout npy holds one vector a window: choose another pool than "none".')
    progress("loading the model", 1, 1)
    sink.about = {"model": str(model), "pool": embedder.pool, "num_frames": embedder.num_frames}
    if not windows.is_whole:
        sink.about["windows"] = embedder.settled(windows).record
    done = len(files) - len(todo)
    with sink:
        for rows in videos_of(embedder.embed(todo, windows), todo, progress, on_failure):
            sink.add(rows)
            done += 1
    return done, len(files)


def videos_of(
    results: Iterable[Embedding | Failure],
    names: Iterable[str],
    progress: Callable[[str, int, int], None],
    on_failure: Callable[[Failure], None],
) -> Iterator[list[Embedding]]:
    """Group what an embedder gives by video, and report on the way.

    Args:
        results: of [`~VideoEmbedder.embed`].
        names: of the videos.
        progress: called after every video, and every window of videos that have several.
        on_failure: called with every failure.

    Yields:
        The embeddings of each video that has any.
    """
    total, videos, windows, known = len(list(names)), 0, 0, 0
    rows: list[Embedding] = []
    for result in results:
        if isinstance(result, Failure):
            on_failure(result)
        else:
            if not rows:
                known += result.num_windows
            rows.append(result)
            windows += 1
            if result.num_windows > 1:
                progress("embedding windows", windows, known)
        ends = isinstance(result, Failure) or result.window == result.num_windows - 1
        if ends:
            videos += 1
            if rows:
                yield rows
            rows = []
            progress("embedding videos", videos, total)
    if rows:
        yield rows
