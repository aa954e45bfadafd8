"""Checkpoint files as flat, lazily read dictionaries: torch pickles, numpy archives and safetensors.

Nothing in a file is ever executed: pickles are read with `weights_only=True`, arrays with `allow_pickle=False`. Of
classes outside torch, pickles may hold `argparse.Namespace`, in which training scripts leave their arguments.
Opening a source reads names, shapes and dtypes; the values of a tensor are read when they are asked for.
"""

import argparse
import errno
import hashlib
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from .core import ConversionError


WINDOW_BYTES = 128 * 2**20
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of a checkpoint that has not been read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class Source:
    """A checkpoint file: `tensors` names what it holds, `read(name)` gives one tensor.

    Names of nested containers are joined with "/": `{"encoder": {"norm.weight": …}}` gives "encoder/norm.weight".

    A mapped page counts as memory of the process from its first use until its mapping ends, so a file is mapped anew
    whenever `WINDOW_BYTES` have been read: peak memory stays near that of the tensors that are kept.
    """

    def __init__(self, path: Path):
        self.path = path
        self._bytes_read = 0
        self.tensors = self._open()

    def read(self, name: str) -> torch.Tensor:
        """The tensor called `name`, on the CPU. It may share memory with the file: copy it to keep it."""
        with _explain(self.path):
            if self._bytes_read > WINDOW_BYTES:
                self.close()
                self._open()
                self._bytes_read = 0
            tensor = self._read(name)
        self._bytes_read += tensor.numel() * tensor.element_size()
        return tensor

    def close(self) -> None:
        """Let go of the file."""
        raise NotImplementedError

    def _open(self) -> dict[str, SourceTensor]:
        raise NotImplementedError

    def _read(self, name: str) -> torch.Tensor:
        raise NotImplementedError


class TorchSource(Source):
    """A file of `torch.save`, memory-mapped unless it is of the format before torch 1.6."""

    def _open(self) -> dict[str, SourceTensor]:
        with self.path.open("rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"
        with torch.serialization.safe_globals([argparse.Namespace]):
            tree = torch.load(self.path, map_location="cpu", weights_only=True, mmap=is_archive)
        self._values = dict(tensor_leaves(tree))
        return {name: SourceTensor(tuple(tensor.shape), tensor.dtype) for name, tensor in self._values.items()}

    def _read(self, name: str) -> torch.Tensor:
        return self._values[name]

    def close(self) -> None:
        self._values = {}


class NumpySource(Source):
    """An archive of `numpy.savez`; each member is decompressed when it is read."""

    def _open(self) -> dict[str, SourceTensor]:
        self._archive = zipfile.ZipFile(self.path)
        tensors = {}
        for member in self._archive.namelist():
            with self._archive.open(member) as file:
                shape, dtype = _npy_header(file)
            tensors[member.removesuffix(".npy")] = SourceTensor(shape, _torch_dtype(dtype, member))
        return tensors

    def _read(self, name: str) -> torch.Tensor:
        with self._archive.open(f"{name}.npy") as file:
            return torch.from_numpy(np.lib.format.read_array(file, allow_pickle=False))

    def close(self) -> None:
        self._archive.close()


class SafetensorsSource(Source):
    """A safetensors file."""

    def _open(self) -> dict[str, SourceTensor]:
        self._file = safe_open(self.path, framework="pt")
        # `keys()` is all that a safe_open has: it cannot be iterated over.
        return {
            name: SourceTensor(tuple(tensor.shape), tensor.dtype)
            for name, tensor in ((name, self._file.get_tensor(name)) for name in self._file.keys())
        }

    def _read(self, name: str) -> torch.Tensor:
        return self._file.get_tensor(name)

    def close(self) -> None:
        del self._file


def tensor_leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor inside nested dictionaries, lists and tuples, with its path; other values are passed over."""
    if isinstance(tree, torch.Tensor):
        yield "/".join(path), tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from tensor_leaves(value, (*path, str(key)))
    elif isinstance(tree, (list, tuple)):
        for index, value in enumerate(tree):
            yield from tensor_leaves(value, (*path, str(index)))


def _npy_header(file) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array, from the first bytes of its member."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _torch_dtype(dtype: np.dtype, member: str) -> torch.dtype:
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except TypeError:
        raise ConversionError(
            f"{member} holds values of type {dtype}, which is no tensor. Save the archive with plain numeric arrays."
        ) from None


@contextmanager
def _explain(path: Path):
    """Turn what the readers raise on bad files into a `ConversionError` with file, cause and remedy."""
    try:
        yield
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise ConversionError(f"{path}: {_unsafe_globals(path)}") from error
    except (EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, SafetensorError, ValueError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConversionError(
            f"{path}: truncated, damaged, or not a {path.suffix} checkpoint ({cause}). Download it again and compare "
            f"its size ({path.stat().st_size:,} bytes here) with the published one."
        ) from error
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _unsafe_globals(path: Path) -> str:
    """Say which names a refused pickle would have imported."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            names = ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        names = ""
    wanted = f"it wants to import {names}" if names else "it is damaged or uses instructions that weights don't need"
    return (
        f"refused, nothing in it was run: its pickle holds more than tensors and plain containers ({wanted}). "
        "If you trust its origin, load it in a sandbox and save the tensors alone with torch.save."
    )


READERS: dict[str, Callable[[Path], Source]] = {
    ".npz": NumpySource,
    ".safetensors": SafetensorsSource,
    **dict.fromkeys(TORCH_SUFFIXES, TorchSource),
}


@contextmanager
def open_source(path: str | os.PathLike) -> Iterator[Source]:
    """Open a checkpoint file for lazy reading.

    Args:
        path: a `.pt`, `.pth`, `.bin`, `.ckpt`, `.tar`, `.npz` or `.safetensors` file.

    Raises:
        ConversionError: no such file, a directory, an unknown suffix, a truncated or damaged file, or a pickle that
            holds anything but tensors and plain containers.
    """
    path = Path(path)
    if path.is_dir():
        raise ConversionError(f"{path}: is a directory; give the checkpoint file itself.")
    if not path.exists():
        raise ConversionError(f"{path}: no such file.")
    if path.suffix not in READERS:
        raise ConversionError(f"{path}: unknown suffix {path.suffix!r}; one of {', '.join(READERS)} is expected.")
    if path.stat().st_size == 0:
        raise ConversionError(f"{path}: empty file. Download it again.")
    with _explain(path):
        source = READERS[path.suffix](path)
    try:
        yield source
    finally:
        source.close()


def sha256(path: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> str:
    """The SHA-256 of a file as hexadecimal digits; `progress(bytes done, bytes in all)` is called as it goes."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
            done += len(block)
            progress(done, total)
    return digest.hexdigest()


@contextmanager
def explain_full_disk(folder: Path, needed_bytes: int):
    """Turn a full disk, as the file system or safetensors reports it, into a `ConversionError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in str(error)
        if not full:
            raise
        raise ConversionError(
            f"{folder}: no space left on the device. The converted files take about {needed_bytes:,} bytes; free "
            "that much or choose another folder. Nothing was left behind."
        ) from error
