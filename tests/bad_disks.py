"""Disks that are full and folders that may not be written into, real ones."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def full_disk(place: Path) -> Iterator[Path]:
    """A disk of 8 MB with 4 KB left; its file `filling` takes the rest.

    Args:
        place: the folder where it is mounted, which is made.
    """
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    try:
        disk = os.statvfs(place)
        (place / "filling").write_bytes(bytes(disk.f_bavail * disk.f_frsize - 4096))
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def unwritable_folder(place: Path) -> Path:
    """A folder that may not be written into; for root, who may do it anywhere else, one of the system's.

    Args:
        place: of a new folder.
    """
    if os.getuid() == 0:
        return Path("/proc")
    place.mkdir()
    place.chmod(0o500)
    return place
