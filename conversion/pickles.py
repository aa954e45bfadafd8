"""What `torch.save` writes, read without running anything of it and without trusting its bytes.

What training runs keep beside weights (`TRAINING_OBJECTS`) is passed over: stand-ins that do nothing take its place.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .ops import ConversionError


_ARRAYS = ("_reconstruct", "scalar")
_PATHS = ("PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
TRAINING_OBJECTS: Mapping[str, tuple[str, ...]] = {
    "argparse": ("Namespace",),
    "builtins": ("bool", "dict", "float", "int", "list", "str", "tuple"),  # what defaultdicts begin with
    "datetime": ("date", "datetime", "time", "timedelta", "timezone"),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": _ARRAYS,
    "numpy._core.multiarray": _ARRAYS,
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
}
"""What pickles may name besides tensors and plain containers, by module."""


def unpickled(path: Path, mmap: bool) -> Any:
    """The containers of a file and their tensors, memory-mapped if the file is an archive."""
    with torch.serialization.safe_globals(_stand_ins()):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


def refusal(path: Path) -> str:
    """Why a pickle was refused: the names that it would have imported."""
    try:
        with torch.serialization.safe_globals(_stand_ins()):
            names = ", ".join(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # damaged bytes can raise anything
        names = ""
    wanted = f"it wants to import {names}" if names else "it is damaged or uses instructions that weights don't need"
    return (
        f"refused, nothing in it was run: its pickle holds more than tensors and plain containers ({wanted}). "
        "If you trust its origin, load it in a sandbox and save the tensors alone with torch.save."
    )


def storage_checksums(path: Path) -> set[tuple[int, int]] | None:
    """Sizes and checksums of the storages in an archive of torch.save; `None` if it was saved without checksums."""
    storages = set()
    with zipfile.ZipFile(path) as archive:
        has_checksums = any(info.CRC for info in archive.infolist())
        for info in archive.infolist():
            is_storage, is_stored = "/data/" in info.filename, info.compress_type == zipfile.ZIP_STORED
            if is_storage:
                storages.add((info.file_size, info.CRC))
            if not is_stored and (is_storage or info.filename.endswith("/data.pkl")):
                raise ConversionError(
                    f"{info.filename} is compressed, and torch.load reads records as they stand. Unpack the file and "
                    "save it again with torch.save."
                )
            if has_checksums and is_stored and not is_storage:
                archive.read(info)
    return storages if has_checksums else None


def _stand_ins() -> list[type]:
    """Classes that pickles get for `TRAINING_OBJECTS`: they take any arguments and states, and drop them.

    numpy's own would not do: the state of a dtype can mark numbers as pointers, which numpy then follows.
    """
    names = [(module, name) for module, names in TRAINING_OBJECTS.items() for name in names]
    made = [type(name, (_StandIn,), {"__module__": module}) for module, name in names]
    return [*made, type("defaultdict", (), {"__module__": "collections", "__new__": lambda *arguments: {}})]


class _StandIn:
    """An object that nothing of a file gets into."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any):
        pass
