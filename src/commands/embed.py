"""Features of many videos in a file or a folder: what the command `vidformers embed` does."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from vidformers.inference.clips import find_videos
from vidformers.inference.embedder import WHOLE, Embedding, Failure, VideoEmbedder
from vidformers.inference.files import FeatureFile, open_output
from vidformers.inference.processes import Processes
from vidformers.inference.ray_engine import RayEmbedder
from vidformers.inference.store import FileState, Store, settings_of
from vidformers.inference.windows import Windows
from vidformers.progress import Progress, no_progress


ALONE = Processes()


def embed_into_table(
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
    ray: Mapping[str, Any] | None = None,
    processes: Processes = ALONE,
    stored_as: str = "float32",
    checksum: bool = False,
    progress: Progress = no_progress,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> tuple[int, int]:
    """Add the features of videos to a table of Lance, which is made where there is none.

    Windows that the table holds are left, so that a run goes on where the one before it stopped; those of a file that
    has changed are made again. Rows are written batch after batch. A row's video is the absolute path of its file.

    Args:
        paths, model, windows, pool, num_frames, batch_size, device, dtype, ray, processes, progress, on_failure: as
            for [`embed_files`]; the pool "none" has no rows.
        out: the table, whose name ends in .lance.
        stored_as: type of the embeddings in a new table, "float32" or "float16".
        checksum: tell whether a file has changed by its content, and not by its size and time.

    Returns:
        Numbers of this process's videos that the table holds to their end, and of all of them.

    Raises:
        OSError: there is no such model, or the table cannot be written.
        ValueError: a path or the model doesn't serve, or the table's rows are made with another model or settings.
    """
    if pool == "none":
        raise ValueError('A table holds one vector a window: choose another pool than "none".')
    files = processes.share({path.resolve().as_posix(): path for path in find_videos(paths).values()})
    options = {"pool": pool, "num_frames": num_frames, "batch_size": batch_size, "dtype": dtype}
    embedder = _load(model, progress, ray, device=device or processes.device, **options)
    store = Store(out, settings_of(embedder, windows), stored_as)
    states = {name: FileState.of(path, checksum) for name, path in files.items()}
    found = store.done(states)
    todo = {name: path for name, path in files.items() if found[name][0] != found[name][1]}
    results = embedder.embed(todo, windows, done={name: found[name][0] for name in todo})
    complete = len(files) - len(todo)
    pending: list[Embedding] = []
    for result in _reported(results, len(todo), progress, on_failure):
        if isinstance(result, Embedding):
            pending.append(result)
        if len(pending) >= embedder.batch_size:
            complete += _write(store, pending, states)
            pending = []
    complete += _write(store, pending, states)
    store.clean()
    return complete, len(files)


def _write(store: Store, rows: Sequence[Embedding], states: Mapping[str, FileState]) -> int:
    """Write rows to a table, and count the videos that end with them."""
    if not rows:
        return 0
    store.add(rows, states)
    ended = [row for row in rows if _ends(row)]
    for row in ended:
        store.finish(row.name, row.num_windows)
    return len(ended)


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
    ray: Mapping[str, Any] | None = None,
    processes: Processes = ALONE,
    layout: str | None = None,
    progress: Progress = no_progress,
    on_failure: Callable[[Failure], None] = lambda failure: None,
) -> tuple[int, int]:
    """Write the features of videos. A video that cannot be read costs its own features only.

    A file takes its name once all videos are done. A folder gets the files of a video as soon as it is done, so that
    another run goes on.

    Args:
        paths: files and folders, as for [`~vidformers.inference.clips.find_videos`].
        model: a model's directory, or the name of a repository on the Hub.
        out: the file to write, .safetensors, .npz or .parquet; or, with a layout, a folder. Without features there is
            none.
        windows: how to cut videos, by default one clip of the whole video.
        layout: "npy" for a .npy and a .json a video.
        pool, num_frames, batch_size, device, dtype: as for [`~VideoEmbedder.from_pretrained`].
        ray: embed on a Ray cluster; `address` and `gpus_per_worker` as for a
            [`~vidformers.inference.RayEmbedder`].
        processes: that share the videos.
        progress: called with an activity and how much of it is done.
        on_failure: called with every video that cannot be embedded to its end.

    Returns:
        Numbers of this process's videos that have features to their end, and of all of them.

    Raises:
        OSError: there is no such model, or the output cannot be written.
        ValueError: the output's name, a path or the model doesn't serve.
    """
    if processes.total > 1 and not layout:
        raise ValueError(
            f"{out}: a single file has one writer, and {processes.total} processes share this job: write a table "
            "(.lance) or, with a layout, a folder."
        )
    files = find_videos(paths) if layout else {}
    sink = open_output(out, layout, list(files), windows.is_whole)
    files = processes.share(files or find_videos(paths))
    todo = {name: path for name, path in files.items() if not (layout and sink.has(name))}
    if not todo:
        return len(files), len(files)
    options = {"pool": pool, "num_frames": num_frames, "batch_size": batch_size, "dtype": dtype}
    embedder = _load(model, progress, ray, device=device or processes.device, **options)
    if embedder.pool == "none" and not isinstance(sink, FeatureFile):
        raise ValueError(f'{out}: holds one vector a window: choose another pool than "none".')
    sink.about = {"model": str(model), "pool": embedder.pool, "num_frames": embedder.num_frames}
    if not windows.is_whole:
        sink.about["windows"] = embedder.settled(windows).record
    done = len(files) - len(todo)
    with sink:
        for rows in _by_video(_reported(embedder.embed(todo, windows), len(todo), progress, on_failure)):
            sink.add(rows)
            done += _ends(rows[-1])
    return done, len(files)


def _load(
    model: str | os.PathLike, progress: Progress, ray: Mapping[str, Any] | None, **options: Any
) -> VideoEmbedder:
    """Load what embeds videos, and report it."""
    progress("loading the model", 0, 1)
    if ray is None:
        embedder = VideoEmbedder.from_pretrained(model, **options)
    else:
        embedder = RayEmbedder.from_pretrained(model, **options, **ray)
    progress("loading the model", 1, 1)
    return embedder


def _ends(result: Embedding | Failure) -> bool:
    """Whether nothing of its video comes after this."""
    return isinstance(result, Failure) or result.window == result.num_windows - 1


def _by_video(results: Iterable[Embedding | Failure]) -> Iterator[list[Embedding]]:
    """The embeddings of each video that has any, once it is done."""
    under_way: dict[str, list[Embedding]] = {}
    for result in results:
        if isinstance(result, Embedding):
            under_way.setdefault(result.name, []).append(result)
        if _ends(result) and (rows := under_way.pop(result.name, None)):
            yield rows


def _reported(
    results: Iterable[Embedding | Failure],
    total: int,
    progress: Progress,
    on_failure: Callable[[Failure], None],
) -> Iterator[Embedding | Failure]:
    """Hand results on, and report each once it has been dealt with.

    Args:
        results: of [`~VideoEmbedder.embed`].
        total: number of videos.
        progress: called after every video, and every window of videos that have several.
        on_failure: called with every failure.
    """
    videos, windows, known = 0, 0, 0
    under_way: set[str] = set()
    for result in results:
        if isinstance(result, Failure):
            on_failure(result)
        elif result.name not in under_way:
            under_way.add(result.name)
            known += result.num_windows - result.window
        yield result
        if isinstance(result, Embedding):
            windows += 1
            if result.num_windows > 1:
                progress("embedding windows", windows, known)
        if _ends(result):
            under_way.discard(result.name)
            videos += 1
            progress("embedding videos", videos, total)
