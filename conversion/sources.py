"""Checkpoint files as flat, lazily read dictionaries: torch pickles, numpy archives and safetensors.

Nothing in a file is ever executed: pickles are read with `weights_only=True`, arrays with `allow_pickle=False`.
Opening a source reads names, shapes and dtypes; the values of a tensor are read, and checked, when they are asked for.
"""

import hashlib
import math
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from vidformers.progress import Progress, no_progress

from .ops import ConversionError
from .pickles import refusal, storage_checksums, unpickled


WINDOW_BYTES = 64 * 2**20
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
WEIGHT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MOST_LISTED = 5
"""How many names of a kind a message gives."""

# No original is near these; files made to exhaust a reader are beyond them.
MOST_NESTED = 32
MOST_VALUES = 10_000_000
MOST_UNPACKED = 100
"""Largest size of a compressed archive's arrays, as a multiple of the file's, where that is more than a GiB."""


def listed(names: Sequence[str]) -> str:
    """Names for a message, the first of them where there are many."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


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
        self._bytes_read, self._is_released = 0, False
        self._sound: set[str] = set()
        self.tensors = self._open()

    def read(self, name: str) -> torch.Tensor:
        """The tensor called `name`, on the CPU. It may share memory with the file: copy it to keep it.

        Raises:
            ConversionError: the file is damaged there, or holds no finite floating-point numbers.
        """
        with _explained(self.path):
            if self._bytes_read > WINDOW_BYTES:
                self.release()
            if self._is_released:
                self._open()
                self._is_released = False
            tensor = self._read(name)
            self._check_values(name, tensor)
            self._bytes_read += tensor.numel() * tensor.element_size()
        return tensor

    def release(self) -> None:
        """Give back the memory of what was read; the next tensor that is read maps the file anew."""
        self.close()
        self._bytes_read, self._is_released = 0, True

    def close(self) -> None:
        """Let go of the file."""
        raise NotImplementedError

    def _open(self) -> dict[str, SourceTensor]:
        raise NotImplementedError

    def _read(self, name: str) -> torch.Tensor:
        raise NotImplementedError

    def _check_values(self, name: str, tensor: torch.Tensor) -> None:
        """Raise if a tensor holds no weights, naming others of its part of the file with the same fault."""
        fault = _fault(tensor)
        if fault is None:
            return
        part = name.rpartition("/")[0]
        alike = [other for other in self.tensors if other.rpartition("/")[0] == part and other != name]
        alike = [name, *(other for other in alike if _fault(self._read(other)) == fault)]
        raise ConversionError(
            f"expected weights, finite floating-point numbers; {fault}: {listed(alike)}. Take another checkpoint, or "
            "save these tensors as float32, float16 or bfloat16."
        )


class TorchSource(Source):
    """A file of `torch.save`, memory-mapped unless it is of the format before torch 1.6.

    torch compares none of the checksums that its archives hold. Here those of small records are compared when the
    file is opened, and that of a storage when a tensor of it is first read.
    """

    def _open(self) -> dict[str, SourceTensor]:
        with self.path.open("rb") as file:
            is_archive = file.read(4) == b"PK\x03\x04"
        self._checksums = storage_checksums(self.path) if is_archive else None
        self._values = {name: tensor.detach() for name, tensor in tensor_leaves(unpickled(self.path, is_archive))}
        first: dict[int, str] = {}
        self._storages = {
            name: first.setdefault(tensor.untyped_storage().data_ptr(), name)
            for name, tensor in self._values.items()
            if _fault_of_type(tensor) is None
        }
        return {name: SourceTensor(tuple(tensor.shape), tensor.dtype) for name, tensor in self._values.items()}

    def _read(self, name: str) -> torch.Tensor:
        tensor, storage = self._values[name], self._storages.get(name)
        if self._checksums is not None and storage is not None and storage not in self._sound:
            data = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
            if (len(data), zlib.crc32(data)) not in self._checksums:
                raise ConversionError(
                    f"{name} is damaged: its bytes don't have the checksum that the file holds. Download it again."
                )
            self._sound.add(storage)
            self._bytes_read += len(data) - tensor.nbytes
        return tensor

    def close(self) -> None:
        self._values = {}


class NumpySource(Source):
    """An archive of `numpy.savez`; each member is decompressed when it is read."""

    def _open(self) -> dict[str, SourceTensor]:
        self._archive = zipfile.ZipFile(self.path)
        unpacked, size = sum(info.file_size for info in self._archive.infolist()), self.path.stat().st_size
        if unpacked > max(MOST_UNPACKED * size, 2**30):
            raise ConversionError(
                f"its {size:,} bytes would become {unpacked:,} when they are unpacked, at most {MOST_UNPACKED} times "
                "as many are expected of weights. If you trust its origin, save it again with numpy.savez."
            )
        self._members = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        return {name: self._described(info) for name, info in self._members.items()}

    def _described(self, info: zipfile.ZipInfo) -> SourceTensor:
        """A member's shape and dtype, from its first bytes."""
        with self._archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            size = file.tell() + math.prod(shape) * dtype.itemsize
        try:
            tensor = SourceTensor(shape, torch.from_numpy(np.empty(0, dtype)).dtype)
        except (TypeError, ValueError):
            raise ConversionError(
                f"{info.filename} holds values of type {dtype}, which is no tensor. Save the archive with plain "
                "numeric arrays."
            ) from None
        if size != info.file_size:
            raise ValueError(f"{info.filename} says that it has {size:,} bytes and has {info.file_size:,}")
        return tensor

    def _read(self, name: str) -> torch.Tensor:
        with self._archive.open(self._members[name]) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read(1)  # At its end a member's checksum is compared.
        return torch.from_numpy(array)

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
        self._file = None


# --------------------------------------------------------------------------------------------------- what files hold


def tensor_leaves(tree: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor inside nested dictionaries, lists and tuples, with its path; other values are passed over.

    Raises:
        ConversionError: containers that are nested too deeply, or have too many values, for a checkpoint.
    """
    count, waiting = 0, [((), tree)]
    while waiting:
        path, value = waiting.pop()
        count += 1
        if isinstance(value, torch.Tensor) and not value.is_nested:
            yield "/".join(path), value
        elif isinstance(value, (Mapping, list, tuple)):
            items = list(value.items() if isinstance(value, Mapping) else enumerate(value))
            waiting += [((*path, str(key)), inner) for key, inner in reversed(items)]
        if len(path) > MOST_NESTED or count > MOST_VALUES:
            raise ConversionError(
                f"its containers hold each other more than {MOST_NESTED} deep, or more than {MOST_VALUES:,} values: "
                "no checkpoint of a model does. Save its tensors alone with torch.save."
            )


def _fault_of_type(tensor: torch.Tensor) -> str | None:
    """Why a tensor holds no numbers that can be weights."""
    if tensor.is_meta:
        return "without values (on the meta device)"
    if tensor.layout is not torch.strided:
        return "sparse"
    return None if tensor.dtype in WEIGHT_TYPES else f"of type {str(tensor.dtype).removeprefix('torch.')}"


def _fault(tensor: torch.Tensor) -> str | None:
    """Why a tensor holds no weights, if it doesn't."""
    fault = _fault_of_type(tensor)
    if fault is None and tensor.numel():
        # The extremes are not finite if any value isn't, and need no memory.
        fault = None if all(math.isfinite(value) for value in tensor.aminmax()) else "not finite"
    return fault


# --------------------------------------------------------------------------------------------------- opening, errors


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn whatever readers raise on bad files into a `ConversionError` with file, cause and remedy.

    Damaged bytes can raise anything in the parsers of others: TokenError, KeyError, struct.error, RecursionError.
    """
    try:
        yield
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}") from error
    except pickle.UnpicklingError as error:
        raise ConversionError(f"{path}: {refusal(path)}") from error
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        cause = str(error).strip().partition("\n")[0]
        raise ConversionError(
            f"{path}: truncated, damaged, or not a {path.suffix} checkpoint ({cause or type(error).__name__}). "
            f"Download it again and compare its size ({path.stat().st_size:,} bytes here) with the published one."
        ) from error


READERS: dict[str, Callable[[Path], Source]] = {
    ".npz": NumpySource,
    ".safetensors": SafetensorsSource,
    **dict.fromkeys(TORCH_SUFFIXES, TorchSource),
}


def check_suffix(path: Path) -> None:
    """Raise unless a file of this name can be read."""
    if path.suffix not in READERS:
        raise ConversionError(f"{path}: unknown suffix {path.suffix!r}; one of {', '.join(READERS)} is expected.")


@contextmanager
def open_source(path: str | os.PathLike) -> Iterator[Source]:
    """Open a checkpoint file for lazy reading.

    Args:
        path: a `.pt`, `.pth`, `.bin`, `.ckpt`, `.tar`, `.npz` or `.safetensors` file.

    Raises:
        ConversionError: no such file, a directory, an unknown suffix, a truncated or damaged file, or a pickle that
            holds anything but tensors, plain containers and `TRAINING_OBJECTS`.
    """
    path = Path(path)
    if path.is_dir():
        raise ConversionError(f"{path}: is a directory; give the checkpoint file itself.")
    if not path.exists():
        raise ConversionError(f"{path}: no such file.")
    check_suffix(path)
    if path.stat().st_size == 0:
        raise ConversionError(f"{path}: empty file. Download it again.")
    with _explained(path):
        source = READERS[path.suffix](path)
    try:
        yield source
    finally:
        source.close()


def sha256(path: Path, progress: Progress = no_progress) -> str:
    """The SHA-256 of a file as hexadecimal digits; `progress` is told the bytes."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
            done += len(block)
            progress(f"hashing {path.name}", done, total)
    return digest.hexdigest()
