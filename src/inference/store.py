"""Embeddings of many videos' windows in a table of Lance, which is appended to, gone on with, and searched.

A table is a folder `NAME.lance`, on a disk or in an object store as lancedb takes it (`s3://…`). A row is a window.
The column `key` names a window of a file; Lance lets no two writers insert the same one.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache

import vidformers

from .directory import Directory
from .embedder import Embedding, VideoEmbedder
from .windows import Windows


SUFFIX = ".lance"
DTYPES = ("float32", "float16")
COMMITS_BETWEEN_CLEANING = 200
ROWS_TO_TRAIN_AN_INDEX = 256
"""Fewer are no basis for the 256 codes of a part of a vector."""
PARTITIONS_TO_LOOK_AT = 20
_ABOUT = b"vidformers"
# By this mark Lance knows the column of which two writers must not insert the same value.
_PRIMARY_KEY = b"lance-schema:unenforced-primary-key:position"
_ROW = ("video", "window", "start_seconds", "middle_seconds", "end_seconds", "frame_indices")


@dataclass(frozen=True)
class FileState:
    """What tells whether a file has changed.

    Attributes:
        size: in bytes.
        modified: its time in nanoseconds; 0 where the content tells.
        checksum: SHA-256 of its content; empty where the time tells.
    """

    size: int
    modified: int
    checksum: str = ""

    @classmethod
    def of(cls, path: str | os.PathLike, checksum: bool = False) -> "FileState":
        """The state of a file; of an address, or a file that cannot be read, nothing is known.

        Args:
            path: of the file.
            checksum: whether to read it whole, and leave its time aside.
        """
        try:
            status = os.stat(path)
            if not checksum:
                return cls(status.st_size, status.st_mtime_ns)
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
            return cls(status.st_size, 0, digest.hexdigest())
        except OSError:
            return cls(0, 0)


@dataclass(frozen=True)
class Hit:
    """A row that a search found, without its embedding.

    Attributes:
        score: the cosine of the angle between its embedding and the query's, at most 1.
        video, window, start_seconds, end_seconds, frame_indices: its columns.
    """

    score: float
    video: str
    window: int
    start_seconds: float
    end_seconds: float
    frame_indices: tuple[int, ...]


def settings_of(embedder: VideoEmbedder, windows: Windows) -> dict[str, Any]:
    """What the embeddings of a table have in common, as JSON takes it.

    Args:
        embedder: made by `from_pretrained`.
        windows: how videos are cut.
    """
    return {
        "model": str(embedder.source.path),
        "revision": revision_of(embedder.source),
        "pool": embedder.pool,
        "num_frames": embedder.num_frames,
        "dtype": str(embedder.model.dtype).removeprefix("torch."),
        "processor": json.loads(embedder.processor.to_json_string()),
        "windows": embedder.settled(windows).record,
        "vidformers": vidformers.__version__,
    }


def revision_of(source: Directory) -> str:
    """The commit of a Hub repository; of a directory a digest of its configuration and the ends of its weights."""
    path = Path(source.path)
    if not path.is_dir():
        found = try_to_load_from_cache(path.as_posix(), "config.json", revision=source.revision)
        return Path(str(found)).parent.name
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.name == "config.json" or file.suffix in (".safetensors", ".bin"):
            with file.open("rb") as opened:
                size = file.stat().st_size
                opened.seek(max(size - 2**20, 0))
                digest.update(f"{file.name} {size} ".encode() + opened.read())
    return digest.hexdigest()[:16]


class Store:
    """A table of embeddings, made where there is none.

    Args:
        uri: its name, which ends in `.lance`.
        settings: what its rows are made with, of [`settings_of`]; `None` to read a table that is there.
        dtype: of the embeddings in a new table, "float32" or "float16".

    Raises:
        ModuleNotFoundError: lancedb is not installed.
        ValueError: the name doesn't end so, the table holds something else, or its rows are made with other settings.
        FileNotFoundError: there is no such table, and no settings to make one.
        OSError: it cannot be read or written.
    """

    def __init__(self, uri: str | os.PathLike, settings: Mapping[str, Any] | None = None, dtype: str = "float32"):
        if dtype not in DTYPES:
            raise ValueError(f"Expected a dtype of {', '.join(DTYPES)}, got {dtype!r}.")
        self.uri, self.dtype = str(uri), dtype
        folder, _, name = self.uri.rstrip("/").rpartition("/")
        if not name.endswith(SUFFIX) or name == SUFFIX:
            raise ValueError(f"{uri}: the name of a table must end in {SUFFIX}.")
        self.name = name.removesuffix(SUFFIX)
        with self._explained():
            self._connection = _lancedb().connect(folder or ("/" if self.uri.startswith("/") else "."))
            self.table = self._opened()
        if self.table is None and settings is None:
            raise FileNotFoundError(f"{uri}: there is no such table.")
        self.settings = dict(settings) if self.table is None else self._stored_settings()
        if settings is not None and self.table is not None:
            self._check_settings(settings)
        self._commits = 0

    def _opened(self) -> Any:
        """The table; `None` where there is none, or what a writer left that was killed while it made one."""
        try:
            return self._connection.open_table(self.name)
        except ValueError as error:
            if "was not found" in str(error):
                return None
            raise

    def _stored_settings(self) -> dict[str, Any]:
        about = (self.table.schema.metadata or {}).get(_ABOUT)
        if about is None or not {*_ROW, "embedding"} <= set(self.table.schema.names):
            raise ValueError(
                f"{self.uri}: is a table of something else, with the columns {', '.join(self.table.schema.names)}. "
                "Choose another name."
            )
        return json.loads(about)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        stored, given = _compared(self.settings), _compared(json.loads(json.dumps(settings)))
        for name in sorted({*stored, *given}):
            if stored.get(name) != given.get(name):
                raise ValueError(
                    f"{self.uri}: its rows are made with {name} {_brief(self.settings, name)}, this run would make "
                    f"them with {_brief(settings, name)}. Both cannot be compared: choose another table or model."
                )

    # -------------------------------------------------------------------------------------------------------- writing

    def done(self, states: Mapping[str, FileState]) -> dict[str, tuple[int, int | None]]:
        """What the table holds of videos as they are now.

        Args:
            states: of each video's file, by name.

        Returns:
            By name, how many first windows there are, and how many the video has, `None` where that is not known.
        """
        found: dict[str, tuple[set[int], int]] = {}
        if self.table is not None:
            with self._explained():
                self.table.checkout_latest()
                columns = ["video", "window", "num_windows", "size", "modified", "checksum"]
                batches = self.table.search().select(columns).to_batches()
                for row in (row for batch in batches for row in batch.to_pylist()):
                    state = FileState(row["size"], row["modified"], row["checksum"])
                    if states.get(row["video"]) == state:
                        found.setdefault(row["video"], (set(), row["num_windows"]))[0].add(row["window"])
        result: dict[str, tuple[int, int | None]] = {}
        for name in states:
            numbers, total = found.get(name, (set(), None))
            result[name] = next(number for number in range(len(numbers) + 1) if number not in numbers), total
        return result

    def add(self, rows: Sequence[Embedding], states: Mapping[str, FileState]) -> None:
        """Write rows. Those that another writer wrote are left, those of a file that has changed are replaced.

        Args:
            rows: embeddings, (D,) each.
            states: of the videos' files.

        Raises:
            OSError: they cannot be written. The table stays as it was.
        """
        with self._explained():
            if self.table is None:
                self.table = self._create(len(rows[0].embedding))
            changed = " OR ".join(f"target.{name} != source.{name}" for name in ("size", "modified", "checksum"))
            merge = self.table.merge_insert("key").when_matched_update_all(where=changed)
            merge.when_not_matched_insert_all().execute(self._arrow(rows, states))
        self._commits += 1
        if self._commits % COMMITS_BETWEEN_CLEANING == 0:
            self.clean()

    def finish(self, name: str, num_windows: int) -> None:
        """Remove what is left of a video whose file had more windows before it was changed.

        Args:
            name: of the video.
            num_windows: that it has now.
        """
        left = f"{_of_video(name)} AND window >= {num_windows}"
        with self._explained():
            if self.table.count_rows(left):
                self.table.delete(left)

    def clean(self) -> None:
        """Join the small files of many commits, and remove versions of more than an hour ago.

        Where another writer does so at the same time, it is left to that one.
        """
        if self.table is None:
            return
        with self._explained():
            try:
                self.table.optimize(cleanup_older_than=timedelta(hours=1))
            except (OSError, RuntimeError) as error:
                if "commit conflict" not in str(error):
                    raise

    def _create(self, dimension: int) -> Any:
        import pyarrow as pa

        try:
            return self._connection.create_table(self.name, schema=self._schema(pa, dimension))
        except (ValueError, OSError, RuntimeError):
            self.table = self._opened()
            if self.table is None:
                raise
        # Another writer was first.
        given, self.settings = self.settings, self._stored_settings()
        self._check_settings(given)
        return self.table

    def _schema(self, pa: Any, dimension: int) -> Any:
        number = pa.float16() if self.dtype == "float16" else pa.float32()
        fields = [
            pa.field("key", pa.string(), nullable=False, metadata={_PRIMARY_KEY: b"1"}),
            ("video", pa.string()),
            ("window", pa.int32()),
            ("num_windows", pa.int32()),
            ("start_seconds", pa.float64()),
            ("middle_seconds", pa.float64()),
            ("end_seconds", pa.float64()),
            ("frame_indices", pa.list_(pa.int32())),
            ("embedding", pa.list_(number, dimension)),
            ("size", pa.int64()),
            ("modified", pa.int64()),
            ("checksum", pa.string()),
        ]
        return pa.schema(fields, metadata={_ABOUT: json.dumps(self.settings).encode()})

    def _arrow(self, rows: Sequence[Embedding], states: Mapping[str, FileState]) -> Any:
        import pyarrow as pa

        schema = self.table.schema
        kind = schema.field("embedding").type.value_type
        numbers = torch.stack([row.embedding for row in rows]).numpy().astype(kind.to_pandas_dtype())
        columns = {
            "key": [f"{row.name}#{row.window}" for row in rows],
            "video": [row.name for row in rows],
            "window": [row.window for row in rows],
            "num_windows": [row.num_windows for row in rows],
            **{name: [getattr(row, name) for row in rows] for name in _ROW[2:]},
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(numbers.reshape(-1), kind), numbers.shape[1]),
            **{name: [getattr(states[row.name], name) for row in rows] for name in ("size", "modified", "checksum")},
        }
        return pa.table(columns, schema=schema)

    # -------------------------------------------------------------------------------------------------------- reading

    def videos(self) -> dict[str, int]:
        """How many rows each video has, by name, in order."""
        return {name: done for name, (done, _) in sorted(self._windows_of().items())}

    def rows_of(self, name: str) -> list[Embedding]:
        """The rows of a video, in order.

        Args:
            name: of the video.
        """
        columns = [*_ROW, "num_windows", "embedding"]
        with self._explained():
            found = self.table.search().where(_of_video(name)).select(columns).limit(None).to_arrow().to_pylist()
        return [
            Embedding(
                row["video"],
                torch.from_numpy(np.asarray(row["embedding"], dtype=np.float32)),
                None,
                tuple(row["frame_indices"]),
                None,
                row["window"],
                row["num_windows"],
                row["start_seconds"],
                row["middle_seconds"],
                row["end_seconds"],
            )
            for row in sorted(found, key=lambda row: row["window"])
        ]

    def count(self, where: str | None = None) -> int:
        """How many rows there are.

        Args:
            where: a condition on columns in SQL, such as "start_seconds > 60"; `None` for all rows.

        Raises:
            ValueError: the condition is none that lancedb takes.
        """
        try:
            return self.table.count_rows(where)
        except ValueError as error:
            columns = ", ".join(self.table.schema.names)
            raise ValueError(
                f"{self.uri}: cannot choose rows by {where!r} ({_first_line(error)}). Write a condition on the "
                f"columns {columns}, such as \"video LIKE '%holiday%' AND start_seconds > 60\"."
            ) from error

    def nearest(
        self,
        vector: torch.Tensor,
        limit: int,
        where: str | None = None,
        *,
        index: bool = False,
        partitions: int = PARTITIONS_TO_LOOK_AT,
    ) -> list[Hit]:
        """The rows whose embeddings have the largest cosine with a vector, the best first.

        Args:
            vector: (D,).
            limit: how many rows at most.
            where: as for `count`.
            index: look in the index, which may miss some; otherwise all rows are compared.
            partitions: of the index to look at. More miss fewer rows and take longer.
        """
        columns = ["video", "window", "start_seconds", "end_seconds", "frame_indices", "_distance"]
        with self._explained():
            query = self.table.search(vector.float().numpy(), vector_column_name="embedding").distance_type("cosine")
            query = query.nprobes(partitions).refine_factor(10) if index else query.bypass_vector_index()
            found = query.where(where).select(columns).limit(limit).to_list()
        return [
            Hit(1 - row.pop("_distance"), **{**row, "frame_indices": tuple(row["frame_indices"])}) for row in found
        ]

    def has_index(self) -> bool:
        """Whether there is an index of the embeddings."""
        with self._explained():
            return any("embedding" in index.columns for index in self.table.list_indices())

    def make_index(self, num_partitions: int | None = None) -> None:
        """Index the embeddings (IVF-PQ). Rows that come later are compared one by one until a run has ended.

        Args:
            num_partitions: by default as many as lancedb finds right.

        Raises:
            ValueError: there are fewer rows than an index is made from.
        """
        if (rows := self.count()) < ROWS_TO_TRAIN_AN_INDEX:
            raise ValueError(
                f"{self.uri}: an index takes {ROWS_TO_TRAIN_AN_INDEX} rows or more, and there are {rows}. Search "
                "without one: so few are compared at once."
            )
        from lancedb.index import IvfPq

        with self._explained():
            self.table.create_index("embedding", config=IvfPq("cosine", num_partitions))

    def check_embedder(self, embedder: VideoEmbedder) -> None:
        """Check that what a model makes of a query can be compared with the rows.

        Args:
            embedder: with the model.

        Raises:
            ValueError: the rows are made with another model or other settings than `embedder` has.
        """
        self._check_settings({**settings_of(embedder, Windows.preset("whole")), "windows": self.settings["windows"]})

    def summary(self) -> dict[str, Any]:
        """What the table holds, as JSON takes it: settings, and numbers of videos, rows and dimensions."""
        videos, embedding = self._windows_of(), self.table.schema.field("embedding").type
        return {
            "table": self.uri,
            "videos": len(videos),
            "complete_videos": sum(done == total for done, total in videos.values()),
            "rows": sum(done for done, _ in videos.values()),
            "dimensions": embedding.list_size,
            "stored_as": str(embedding.value_type),
            **self.settings,
        }

    def _windows_of(self) -> dict[str, tuple[int, int]]:
        """How many rows each video has, and how many windows, by name."""
        found: dict[str, tuple[int, int]] = {}
        with self._explained():
            for batch in self.table.search().select(["video", "num_windows"]).to_batches():
                for row in batch.to_pylist():
                    found[row["video"]] = found.get(row["video"], (0, 0))[0] + 1, row["num_windows"]
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what lancedb raises into an OSError that names the table and says what to do."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            cause = _first_line(error)
            remedy = "Check that the folder may be written and its disk has space, then run again: nothing is lost."
            raise OSError(f"{self.uri}: the table cannot be read or written ({cause}). {remedy}") from error


def _lancedb() -> Any:
    try:
        import lancedb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Tables need the package lancedb: pip install 'vidformers[search]', or write to .safetensors or .npz."
        ) from error
    return lancedb


def _first_line(error: Exception) -> str:
    """What an error says, without the place in Lance's own source that it came from."""
    return re.sub(r", \S+\.rs:\d+:\d+$", "", str(error).strip().partition("\n")[0])


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that rows of one table must share. A directory is told by its content, not by its name."""
    left_out = {"vidformers"} | ({"model"} if len(str(settings.get("revision"))) == 16 else set())
    return {name: value for name, value in settings.items() if name not in left_out}


def _brief(settings: Mapping[str, Any], name: str) -> str:
    value = settings.get(name)
    if name == "revision":
        return f"{value} of {settings.get('model')}"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _of_video(name: str) -> str:
    """The condition on rows to be of a video."""
    quoted = name.replace("'", "''")
    return f"video = '{quoted}'"
