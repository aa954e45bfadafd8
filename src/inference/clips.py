"""Video files, and the frames that a model takes of each."""

import os
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from transformers.video_utils import VideoMetadata

from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.video import uniform_indices
from vidformers.video.decode import decode_video
from vidformers.video.processor import VideoProcessor


DEFAULT_FRAMES = 8
"""Frames to take of a video where neither model nor processor names a number, as for most PE checkpoints."""
VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
"""What a folder is searched for. Files that are named themselves may end in anything."""


def videos_below(folder: str | os.PathLike) -> list[Path]:
    """The files with one of `VIDEO_SUFFIXES` in a folder and its subfolders, sorted."""
    return files_below(folder, VIDEO_SUFFIXES)


def files_below(folder: str | os.PathLike, suffixes: Collection[str]) -> list[Path]:
    """The files with one of these suffixes in a folder and its subfolders, sorted."""
    return sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in suffixes and file.is_file())


def find_videos(paths: Sequence[str | os.PathLike]) -> dict[str, Path]:
    """Name the videos among files and folders.

    Args:
        paths: files, taken whatever their suffix, and folders, searched with all that is below them for
            `VIDEO_SUFFIXES`.

    Returns:
        File for each name: its file name, or, if several files have that, its path as given.

    Raises:
        FileNotFoundError: a file or folder is not there.
        ValueError: a folder without a video, or a file given twice.
    """
    files: list[Path] = []
    missing = [str(path) for path in paths if not os.path.exists(path)]
    if missing:
        raise FileNotFoundError(f"There is no such file: {', '.join(missing)}.")
    for path in map(Path, paths):
        inside = videos_below(path)
        if path.is_dir() and not inside:
            raise ValueError(f"{path}: holds no video (looked for {' '.join(sorted(VIDEO_SUFFIXES))}).")
        files += inside if path.is_dir() else [path]
    twice = sorted({str(file) for file in files if files.count(file) > 1})
    if twice:
        raise ValueError(f"given more than once: {', '.join(twice)}.")
    names = [file.name for file in files]
    return {file.name if names.count(file.name) == 1 else file.as_posix(): file for file in files}


def frames_of_a_clip(model: VideoPreTrainedModel, processor: VideoProcessor) -> int:
    """How many frames a checkpoint is meant for: what its model says, or else its video processor."""
    return model.frames_per_clip or processor.num_frames or DEFAULT_FRAMES


def read_clip(
    source: str | os.PathLike, processor: VideoProcessor, num_frames: int, *, exactly: bool = False
) -> tuple[np.ndarray, VideoMetadata]:
    """Frames of a video, spread as its checkpoint's processor does or, where it names a `sampling`, by that.

    Args:
        source: what [`~vidformers.decode_video`] takes.
        processor: a video processor.
        num_frames: how many. Of a video that has fewer, frames are repeated where the processor does so, and
            otherwise all are taken.
        exactly: repeat frames of such a video whatever the processor does, so that clips can be stacked.

    Returns:
        uint8 (T, H, W, C), and the metadata that tells which frames these are.

    Raises:
        VideoDecodeError: the video cannot be read, or no frames can be chosen of it.
    """
    return decode_video(source, partial(clip_indices_of, processor, num_frames, exactly=exactly))


def clip_indices_of(
    processor: VideoProcessor, num_frames: int, metadata: VideoMetadata, *, exactly: bool = False
) -> np.ndarray:
    """The frames that [`read_clip`] takes of a video with this metadata: their numbers, (T,)."""
    stored = {} if processor.sampling is None else {"sampling": processor.sampling, "fps": processor.fps}
    if stored or processor.repeats_frames or num_frames <= metadata.total_num_frames:
        return processor.choose_frames(metadata, num_frames, **stored)
    if exactly:
        return uniform_indices(metadata, num_frames)
    return processor.choose_frames(metadata, metadata.total_num_frames)
