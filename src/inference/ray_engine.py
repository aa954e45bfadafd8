"""Videos embedded by the workers of a Ray cluster: scheduling, retries and autoscaling are those of Ray Data."""

import logging
import os
import pickle
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from .embedder import DECODING_THREADS, WHOLE, Embedding, Failure, VideoEmbedder, open_for_videos
from .windows import Windows


# Rows are handed on when so many bytes of them are there; Ray's default of 128 MiB would hold them back for hours.
BLOCK_BYTES = 2**16
TASKS_A_WORKER = 4


class RayEmbedder(VideoEmbedder):
    """A [`VideoEmbedder`] whose videos are embedded by actors of Ray Data, each of which holds the model.

    This process has no weights. A task is a few videos; one whose actor dies is run again. Windows of a video come in
    order, videos as they are done. Actors open files by the absolute paths that they have here.

    Args:
        model: of the class and type that actors load, on the meta device.
        processor, pool, num_frames, batch_size, source: as for a [`VideoEmbedder`].
    """

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | None = None,
        pool: str = "auto",
        num_frames: int | None = None,
        batch_size: int | None = None,
        address: str | None = None,
        gpus_per_worker: float | None = None,
    ) -> "RayEmbedder":
        """Read what a model is, and note how it is to be run.

        Args:
            name, dtype, pool, num_frames, batch_size: as for [`VideoEmbedder.from_pretrained`].
            device: where an actor runs the model; by default its GPU, and the CPU where it has none.
            address: of a running cluster, "auto" for that of this machine; by default that of `RAY_ADDRESS`, and a new
                one of this machine without it.
            gpus_per_worker: of an actor, also a part of one; by default 1 where the cluster has any, otherwise 0.

        Raises:
            ModuleNotFoundError: ray is not installed.
            OSError: there is no such model.
            ValueError: it doesn't embed videos, or has no joint embedding where that is asked for.
        """
        _ray()
        opened = open_for_videos(name, pool)
        config = opened.model_class.for_features(opened.config)
        with torch.device("meta"):
            model = opened.model_class._from_config(config, dtype=dtype)
        options = {"pool": pool, "num_frames": num_frames, "batch_size": batch_size}
        embedder = cls(model, AutoVideoProcessor.from_pretrained(name), source=opened, **options)
        embedder._options = {**options, "dtype": dtype, "device": device}
        embedder._address, embedder._gpus = address, gpus_per_worker
        return embedder

    def embed(
        self,
        videos: Mapping[str, str | os.PathLike],
        windows: Windows = WHOLE,
        *,
        done: Mapping[str, int] | None = None,
    ) -> Iterator[Embedding | Failure]:
        """Embed videos on the cluster, as [`VideoEmbedder.embed`] does here.

        Args:
            videos, windows, done: as there.

        Raises:
            OSError: the cluster cannot be reached, or gave up.
        """
        if not videos:
            return
        rows = [
            {"name": name, "path": str(Path(path).absolute()), "done": (done or {}).get(name, 0)}
            for name, path in videos.items()
        ]
        ray = _ray()
        with _connected(ray, self._address):
            for row in self._dataset(ray, rows, windows).iter_rows():
                yield pickle.loads(row["result"])

    def _dataset(self, ray: Any, rows: list[dict[str, Any]], windows: Windows) -> Any:
        """A data set of Ray whose rows are pickled results, of one with a row a video."""
        there = ray.cluster_resources()
        gpus = self._gpus if self._gpus is not None else float("GPU" in there)
        cpus = DECODING_THREADS if gpus else 1
        workers = int(there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1) / cpus)
        tasks = max(len(rows) // self.batch_size, min(len(rows), TASKS_A_WORKER * workers), 1)
        name, device = str(self.source.path), self._options["device"] or (None if gpus else "cpu")
        name = os.path.abspath(name) if os.path.isdir(name) else name
        dataset = ray.data.from_items(rows, override_num_blocks=tasks).map_batches(
            _Actor,
            fn_constructor_args=[name, windows, {**self._options, "device": device}],
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(min_size=1),
            num_cpus=cpus,
            num_gpus=gpus,
        )
        dataset.context.target_max_block_size = BLOCK_BYTES
        dataset.context.enable_progress_bars = False
        return dataset


class _Actor:
    """What each worker holds, and does with the videos of a task."""

    def __init__(self, name: str, windows: Windows, options: Mapping[str, Any]):
        self.embedder, self.windows = VideoEmbedder.from_pretrained(name, **options), windows

    def __call__(self, batch: Mapping[str, Any]) -> Iterator[dict[str, list[bytes]]]:
        names = batch["name"].tolist()
        videos, done = dict(zip(names, batch["path"].tolist())), dict(zip(names, batch["done"].tolist()))
        for result in self.embedder.embed(videos, self.windows, done=done):
            yield {"result": [pickle.dumps(result)]}


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The engine ray needs the package ray: pip install 'vidformers[ray]', or leave the engine out."
        ) from error
    return ray


def _check_reachable(address: str) -> None:
    """Raise an OSError unless somebody answers at HOST:PORT, where Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to a cluster while the block runs; one that is there already is kept."""
    own = not ray.is_initialized()
    if own:
        named = address or os.environ.get("RAY_ADDRESS", "")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            _check_reachable(named)
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise OSError(
                f"No Ray cluster can be reached at {named} ({error}). "
                "Start one (`ray start --head`), or leave the address out for one of this machine alone."
            ) from error
    try:
        yield
    except ray.exceptions.RayError as error:
        raise OSError(f"The Ray cluster gave up: {error}") from error
    finally:
        if own:
            ray.shutdown()
