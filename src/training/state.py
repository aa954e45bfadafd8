"""The state of a training that may be stopped: a folder beside what it writes in the end."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vidformers.files import written_whole


def check_installed(package: str, purpose: str) -> None:
    """A ModuleNotFoundError that says what to install, where a package is not there."""
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"Training needs {package}, for {purpose}. Install it with `pip install 'vidformers[train]'`.",
            name=package,
        )


def check_state(out: Path, record: Mapping[str, Any], resume: bool) -> Path:
    """The folder for the state of a training, once it is known that the training may begin or go on there.

    Args:
        out: the directory that the training writes in the end.
        record: task and settings in plain values.
        resume: whether it is to go on.

    Raises:
        ValueError: there is a state that is not to be resumed, or of another task.
    """
    state = out.with_name(f"{out.name}.training")
    noted = state / "task.json"
    if noted.is_file():
        earlier = json.loads(noted.read_text("utf-8"))
        if not resume:
            raise ValueError(f"{state} holds an unfinished training. Pass --resume to go on, or remove the folder.")
        differing = [name for name in record if record[name] != earlier.get(name)]
        if differing:
            listed = "; ".join(f"{name} was {earlier.get(name)}, now {record[name]}" for name in differing)
            raise ValueError(f"{state} holds the training of another task: {listed}. Remove the folder to start over.")
    elif resume:
        raise ValueError(f"There is nothing to resume: {state} does not exist.")
    else:
        with written_whole(state, folder=True) as (place,):
            (place / noted.name).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return state
