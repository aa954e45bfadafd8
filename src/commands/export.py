"""Files beside a model by which other tools load it: what the command `vidformers export` does."""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vidformers.files import check_target, written_whole
from vidformers.inference.directory import Directory


MODULE = "vidformers.sentence_transformers.VideoEncoder"


def export_sentence_transformers(directory: str | os.PathLike, num_frames: int | None = None) -> list[Path]:
    """Write beside a model what `SentenceTransformer(directory, trust_remote_code=True)` reads.

    Args:
        directory: a directory whose model embeds videos. Its own files are left as they are.
        num_frames: frames to take of a video; by default as many as the checkpoint is meant for.

    Returns:
        The files.

    Raises:
        OSError: there is no such directory, or it cannot be written to.
        ValueError: its model doesn't embed videos, or a file has one of the names already.
    """
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"{directory}: there is no such directory.")
    Directory.open_for_videos(directory)
    contents: dict[str, Any] = {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": MODULE}],
        "config_sentence_transformers.json": {
            "__version__": {"vidformers": version("vidformers")},
            "model_type": "SentenceTransformer",
            "similarity_fn_name": "cosine",
        },
        "sentence_video_config.json": {"num_frames": num_frames},
    }
    targets = [check_target(Path(directory) / name) for name in contents]
    with written_whole(*targets) as places:
        for place, content in zip(places, contents.values(), strict=True):
            place.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return targets
