"""Files and folders that appear whole or not at all: made beside their place, then renamed.

The work goes on in a hidden folder beside the target. Its name is its own, so that nothing that an earlier run left
stands in the way, and its writer holds a lock: what nobody locks is a leftover, and the next writer removes it.
"""

import errno
import os
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from safetensors import SafetensorError


try:
    import fcntl
except ImportError:  # Windows: leftovers stay, and are in nobody's way.
    fcntl = None


PREFIX = ".vidformers-unfinished-"
LOCK = ".lock"


def check_target(path: str | os.PathLike, *, folder: bool = False) -> Path:
    """The path of a file or folder to make, once it is known that it can be made.

    Args:
        path: its name. A file needs a folder to be in; for a folder, those above it may be missing.
        folder: whether it is a folder, which may be there already if it is empty.

    Raises:
        ValueError: the name is taken, too long, a link or a mount point, or its folder is missing or not writable.
    """
    path = Path(path)
    above = path.absolute().parent
    if folder:
        above = next(each for each in (above, *above.parents) if os.path.lexists(each))
    if not os.path.isdir(above):
        raise ValueError(f"{path}: there is no folder {above}; make it, or choose another name.")
    try:
        # Below a folder that is missing, no name would be found too long.
        os.lstat(above / path.name)
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise ValueError(f"{path}: cannot be made ({error.strerror}); choose another name.") from error
    if mode is not None:
        _check_may_be_replaced(path, mode, folder)
    if not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: you may not write into {above}; choose another folder.")
    return path


def _check_may_be_replaced(path: Path, mode: int, folder: bool) -> None:
    """Raise a ValueError unless what has a name already is an empty folder where one is to be made."""
    if stat.S_ISLNK(mode):
        raise ValueError(f"{path}: is a link to {os.readlink(path)}; name the place itself, or remove the link.")
    if path.name in ("", ".."):
        raise ValueError(f"{path}: exists already; give the name of a new {'folder' if folder else 'file'}.")
    if not (folder and stat.S_ISDIR(mode)) or any(path.iterdir()):
        raise ValueError(f"{path}: exists already; remove it or choose another name.")
    if os.path.ismount(path):
        raise ValueError(
            f"{path}: another disk begins here, so that nothing can be renamed to it; name a folder in it."
        )


@contextmanager
def written_whole(*targets: Path, folder: bool = False) -> Iterator[list[Path]]:
    """Places in which to make files, or folders, that take their names when the block ends: all of them or none.

    If the block fails, by Ctrl-C or SIGTERM too, nothing of them is left.

    Args:
        targets: the names that they get at the end.
        folder: whether they are folders; then the places are there, empty.

    Yields:
        A place for each target, of the same name in another folder of the same disk.
    """
    with _unwound_by_sigterm(), ExitStack() as stack:
        places = [stack.enter_context(_workplace(target.parent)) / target.name for target in targets]
        for place in places if folder else ():
            place.mkdir()
        yield places
        renamed: list[Path] = []
        try:
            for place, target in zip(places, targets, strict=True):
                os.replace(place, target)
                renamed.append(target)
        except BaseException:
            for target in renamed:
                shutil.rmtree(target) if folder else target.unlink()
            raise


@contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`, locked, that goes away in the end."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{parent}: cannot be made ({error.strerror}); choose another folder.") from error
    _remove_leftovers(parent)
    while True:
        try:
            place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            raise OSError(f"{parent}: cannot be written into ({error.strerror}); choose another folder.") from error
        lock = _lock(place, wait=True)
        if place.exists():  # Another run may have taken it for a leftover before it was locked.
            break
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_leftovers(parent: Path) -> None:
    """Remove what killed runs left in a folder."""
    for place in parent.glob(f"{PREFIX}*"):
        lock = None if place.is_symlink() else _lock(place, wait=False)
        if lock is not None:
            shutil.rmtree(place, ignore_errors=True)
            os.close(lock)


def _lock(place: Path, wait: bool) -> int | None:
    """Lock a workplace: the descriptor that holds the lock until it is closed or its process ends.

    `None` if another process has it and this one doesn't wait, the place is gone, or the disk knows no locks.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(place / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the program by an exception, which cleans up, unless somebody handles it already."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def explained_write(target: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Turn what writers raise into an OSError that names the target; around writing and nothing else.

    Args:
        target: what is written, by the name that it gets.
        num_bytes: its size, which is said when the disk is full.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        above = next(each for each in target.absolute().parents if each.is_dir())
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "os error 28" in cause
        # torch.save doesn't say why it failed.
        if not full and shutil.disk_usage(above).free > 2**20:
            raise OSError(f"{target}: cannot be written ({cause}).") from error
        needed = f"about {num_bytes:,} bytes" if num_bytes else "some"
        raise OSError(
            f"{target}: no space left on the device; free {needed} or choose another folder. Nothing was left behind."
        ) from error
