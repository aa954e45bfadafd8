"""Features in files: one array a video and a JSON text about them, written video after video."""

import json
import os
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from vidformers.files import check_target, explained_write, written_whole

from .embedder import Embedding


LAYOUTS = ("npy",)
SAFETENSORS_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def stacked(rows: Sequence[Embedding], whole: bool) -> torch.Tensor:
    """What is written of a video: (D,) or tokens of the whole; otherwise a row a window.

    Args:
        rows: its embeddings, in order.
        whole: whether it was embedded as one clip.
    """
    return rows[0].embedding if whole else torch.stack([row.embedding for row in rows])


def record_of(rows: Sequence[Embedding], whole: bool) -> dict[str, Any]:
    """What is stored beside a video's array, as JSON takes it.

    Args:
        rows, whole: as for [`stacked`].
    """
    first = rows[0]
    if whole:
        return {"grid": first.grid, "fps": first.fps, "frame_indices": first.frame_indices}
    fields = ("window", "start_seconds", "middle_seconds", "end_seconds", "frame_indices")
    windows = [{name: getattr(row, name) for name in fields} for row in rows]
    return {"grid": first.grid, "fps": first.fps, "num_windows": first.num_windows, "windows": windows}


class _WholeFile:
    """A file that takes its name when it is closed; without videos there is none.

    Args:
        path: its name, which was checked.
    """

    def __init__(self, path: Path):
        self.path = path
        self._stack = ExitStack()
        self._sink: Any = None

    def __enter__(self) -> Self:
        return self

    def _place(self) -> Path:
        """Where to make the file, asked for once."""
        (place,) = self._stack.enter_context(written_whole(self.path))
        return place

    def _close(self) -> None:
        """Write what comes last."""
        raise NotImplementedError

    def __exit__(self, *error: Any) -> bool | None:
        if error[0] is not None:
            return self._stack.__exit__(*error)
        with self._stack:
            if self._sink is not None:
                with explained_write(self.path):
                    self._close()
        return None


class FeatureFile(_WholeFile):
    """A file of features, .safetensors or .npz, that takes its name when it is closed; without videos there is none.

    The text holds `about` and, as "videos", the record of each video. In a safetensors file it is the entry
    "embeddings" of the metadata, in an npz file the array "__metadata__". npz has no bfloat16: float32 stands in.

    Args:
        path: its name.
        whole: whether videos are embedded as one clip.
        **about: what the videos have in common, such as the model's name.

    Raises:
        ValueError: the name ends in neither, is taken, or its folder is missing or not writable.
    """

    def __init__(self, path: str | os.PathLike, whole: bool = True, **about: Any):
        super().__init__(check_output(path))
        self.whole, self.about = whole, about
        self.records: dict[str, dict[str, Any]] = {}

    def add(self, rows: Sequence[Embedding]) -> None:
        """Write a video.

        Args:
            rows: its embeddings, in order.

        Raises:
            OSError: the file cannot be written. Nothing is left behind then.
        """
        if self._sink is None:
            self._sink = (_Npz if self.path.suffix == ".npz" else _Safetensors)(self._place())
        array = stacked(rows, self.whole)
        with explained_write(self.path, array.numel() * array.element_size()):
            self._sink.add(rows[0].name, array.contiguous())
        self.records[rows[0].name] = record_of(rows, self.whole)

    def _close(self) -> None:
        self._sink.close(json.dumps({**self.about, "videos": self.records}))


class _Npz:
    """An npz file with keys of any kind; `np.savez` takes them for its own arguments where they are alike."""

    def __init__(self, path: Path):
        self.archive = zipfile.ZipFile(path, "w")

    def add(self, name: str, array: torch.Tensor | np.ndarray) -> None:
        if isinstance(array, torch.Tensor):
            array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
        with self.archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, array, allow_pickle=False)

    def close(self, text: str) -> None:
        self.add("__metadata__", np.array(text))
        self.archive.close()


class _Safetensors:
    """A safetensors file. Its header stands first and tells all, so that the data wait in a file beside it."""

    def __init__(self, path: Path):
        self.path, self.spool = path, path.with_name("data")
        self.data = self.spool.open("wb")
        self.entries: dict[str, dict[str, Any]] = {}

    def add(self, name: str, array: torch.Tensor) -> None:
        start = self.data.tell()
        self.data.write(array.flatten().view(torch.uint8).numpy())
        place = {"data_offsets": [start, self.data.tell()]}
        self.entries[name] = {"dtype": SAFETENSORS_DTYPES[array.dtype], "shape": list(array.shape), **place}

    def close(self, text: str) -> None:
        self.data.close()
        header = json.dumps({"__metadata__": {"format": "pt", "embeddings": text}, **self.entries}).encode()
        header += b" " * (-len(header) % 8)
        with self.path.open("wb") as file, self.spool.open("rb") as data:
            file.write(len(header).to_bytes(8, "little") + header)
            shutil.copyfileobj(data, file, 2**20)


class FeatureFolder:
    """A folder with `NAME.npy`, (windows, D) float32, and `NAME.json` with times for each video, its name up to the
    first dot: what ActionFormer and OpenTAD read. Videos that have theirs already are left out.

    Args:
        path: the folder; it is made where it is missing.
        names: of all videos.
        **about: what the videos have in common.

    Raises:
        ValueError: two videos would have one name, or there is a file of that name.
    """

    def __init__(self, path: str | os.PathLike, names: Sequence[str], **about: Any):
        self.path, self.about = Path(path), about
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{path}: is a file; name a folder.")
        if not self.path.exists():
            check_target(self.path, folder=True)
        stems = [self.stem(name) for name in names]
        twice = sorted({stem for stem in stems if stems.count(stem) > 1})
        if twice:
            raise ValueError(f"Several videos would be written as {', '.join(twice)}.npy: rename them.")

    @staticmethod
    def stem(name: str) -> str:
        """The name of a video's files: its file name up to the first dot."""
        return Path(name).name.partition(".")[0]

    def has(self, name: str) -> bool:
        """Whether a video has its files, with all its windows."""
        npy, text = (self.path / f"{self.stem(name)}{suffix}" for suffix in (".npy", ".json"))
        if not (npy.exists() and text.exists()):
            return False
        try:
            about = json.loads(text.read_text("utf-8"))
            return about["num_windows"] == len(about["windows"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{text}: does not tell of a video's windows. Move it away, or name a folder.") from error

    def __enter__(self) -> "FeatureFolder":
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def add(self, rows: Sequence[Embedding]) -> None:
        """Write the files of a video.

        Args:
            rows: its embeddings, in order.

        Raises:
            OSError: they cannot be written. Nothing is left behind then.
        """
        stem, array = self.stem(rows[0].name), stacked(rows, False).float().numpy()
        targets = [self.path / f"{stem}{suffix}" for suffix in (".npy", ".json")]
        for target in targets:
            target.unlink(missing_ok=True)
        with written_whole(*targets) as (npy, text), explained_write(targets[0], array.nbytes):
            np.save(npy, array, allow_pickle=False)
            text.write_text(json.dumps({**self.about, "video": rows[0].name, **record_of(rows, False)}), "utf-8")


class FeatureRows(_WholeFile):
    """A Parquet file with a row a window: the columns of a table of Lance, and what rows have in common as metadata.

    Args:
        path: its name, which it takes when it is closed; without videos there is none.
        **about: what the videos have in common.

    Raises:
        ValueError: the name is taken, or its folder is missing or not writable.
        ModuleNotFoundError: pyarrow is not installed.
    """

    def __init__(self, path: str | os.PathLike, **about: Any):
        super().__init__(check_target(path))
        self.about = about
        try:
            import pyarrow as pa
            import pyarrow.parquet as parquet
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{path}: Parquet needs the package pyarrow: pip install 'vidformers[search]'."
            ) from error
        self._pa, self._parquet = pa, parquet

    def add(self, rows: Sequence[Embedding]) -> None:
        """Write the rows of a video.

        Args:
            rows: its embeddings, (D,) each, in order.

        Raises:
            OSError: the file cannot be written. Nothing is left behind then.
        """
        pa, numbers = self._pa, torch.stack([row.embedding for row in rows]).float().numpy()
        names = ("window", "num_windows", "start_seconds", "middle_seconds", "end_seconds", "frame_indices")
        columns = {
            "video": [row.name for row in rows],
            **{name: [getattr(row, name) for row in rows] for name in names},
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1)), numbers.shape[1]),
        }
        table = pa.table(columns).replace_schema_metadata({"vidformers": json.dumps(self.about)})
        place = self._place() if self._sink is None else None
        with explained_write(self.path, numbers.nbytes):
            self._sink = self._sink or self._parquet.ParquetWriter(place, table.schema)
            self._sink.write_table(table)

    def _close(self) -> None:
        self._sink.close()


def open_output(
    path: str | os.PathLike, layout: str | None, names: Sequence[str], whole: bool
) -> FeatureFile | FeatureFolder | FeatureRows:
    """What writes features to a place, by its name.

    Args:
        path: a file that ends in .safetensors, .npz or .parquet; with a layout, a folder.
        layout: one of `LAYOUTS`, or `None`.
        names: of all videos.
        whole: whether each is embedded as one clip.

    Raises:
        ValueError: an unknown layout or ending, or nothing can be written there.
    """
    if layout not in (None, *LAYOUTS):
        raise ValueError(f"Expected layout {', '.join(LAYOUTS)}, got {layout!r}.")
    if layout:
        return FeatureFolder(path, names)
    return FeatureRows(path) if Path(path).suffix == ".parquet" else FeatureFile(path, whole)


def check_output(path: str | os.PathLike) -> Path:
    """The path of a file to write, once it is known that it can be.

    Raises:
        ValueError: it can't.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"{path}: the name must end in .safetensors, .npz, .parquet or .lance.")
    return check_target(path)
