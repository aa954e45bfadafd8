"""What a table of embeddings holds, and its rows in other files: the commands `vidformers info` and `extract`."""

import os
from typing import Any

from vidformers.inference.files import open_output
from vidformers.inference.store import Store
from vidformers.progress import Progress, no_progress


def describe(table: str | os.PathLike) -> dict[str, Any]:
    """What a table holds, as JSON takes it.

    Args:
        table: its name, which ends in .lance.

    Raises:
        OSError: there is no such table, or it cannot be read.
        ValueError: it holds something else.
    """
    return Store(table).summary()


def extract(
    table: str | os.PathLike,
    out: str | os.PathLike,
    layout: str | None = None,
    progress: Progress = no_progress,
) -> int:
    """Write a table's rows to files, video after video, as `vidformers embed` writes those of windows.

    Args:
        table: its name, which ends in .lance.
        out, layout: as for [`~commands.embed.embed_files`].
        progress: called with an activity and how much of it is done.

    Returns:
        Number of videos.

    Raises:
        OSError: there is no such table, or something cannot be read or written.
        ValueError: the table holds something else, or the output's name doesn't serve.
    """
    store = Store(table)
    names = list(store.videos())
    sink = open_output(out, layout, names, False)
    sink.about = store.settings
    with sink:
        for number, name in enumerate(names, start=1):
            sink.add(store.rows_of(name))
            progress("writing videos", number, len(names))
    return len(names)
