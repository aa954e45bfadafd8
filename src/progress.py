"""How a job tells what it has done. Importing it loads no torch."""

from collections.abc import Callable


Progress = Callable[[str, int, int], None]
"""Called with what is going on, the amount done and the amount in all."""


def no_progress(activity: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""
