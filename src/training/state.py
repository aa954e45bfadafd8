"""The state of a training that may be stopped: a folder beside what it writes in the end."""

import json
import pickle
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from vidformers.files import written_whole


OPTIMIZER_FILE = "optimizer.pt"
"""In a directory that pre-training has written, what its optimizer knew: tensors by the names of parameters."""


def check_installed(package: str, purpose: str) -> None:
    """A ModuleNotFoundError that says what to install, where a package is not there."""
    if find_spec(package) is None:
        raise ModuleNotFoundError(
            f"Training needs {package}, for {purpose}. Install it with `pip install 'vidformers[train]'`.",
            name=package,
        )


def check_state(out: Path, record: Mapping[str, Any], resume: bool, free: Collection[str] = ()) -> Path:
    """The folder for the state of a training, once it is known that the training may begin or go on there.

    Args:
        out: the directory that the training writes in the end.
        record: task and settings in plain values.
        resume: whether it is to go on.
        free: what may be other than before when it goes on; the new values then count.

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
        refused = [name for name in differing if name not in free]
        if refused:
            listed = "; ".join(f"{name} was {earlier.get(name)}, now {record[name]}" for name in refused)
            raise ValueError(f"{state} holds the training of another task: {listed}. Remove the folder to start over.")
        if differing:
            with written_whole(noted) as (place,):
                _write(place, record)
    elif resume:
        raise ValueError(f"There is nothing to resume: {state} does not exist.")
    else:
        with written_whole(state, folder=True) as (place,):
            _write(place / noted.name, record)
    return state


def _write(file: Path, record: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def read_optimizer_state(file: Path, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What an optimizer knew of a model's parameters, from an `OPTIMIZER_FILE`.

    Args:
        file: the file.
        model: the model that is trained on.

    Returns:
        As [`~vidformers.training.PreTrainer.optimizer_state`] returns it.

    Raises:
        ValueError: the file cannot be read, or is of another model.
    """
    remedy = "Remove it for a new optimizer."
    try:
        state = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file}: cannot be read as the state of an optimizer. {remedy}") from error
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    for key, value in state.items():
        shape = shapes.get(key.rpartition("/")[0])
        if shape is None or value.ndim and value.shape != shape:
            raise ValueError(
                f"{file}: is of another model, with {key} of the shape {tuple(value.shape)}, where this one has "
                f"{'no such parameter' if shape is None else tuple(shape)}. {remedy}"
            )
    return state
