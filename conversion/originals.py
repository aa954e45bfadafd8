"""The original implementations, as verification calls them: `<family>/original.py` runs one from a checkout.

Each has `example_calls(config, architecture)`, the keyword arguments of a few small calls of our model, and
`original_stages(repository, config, found, calls)`, what the original code makes of the same calls on its own weights,
under the names that `verify.run_stages` gives our model's outputs. Where the original doesn't take them,
`original_calls(config, architecture)` has others for it.
"""

import importlib
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .found import FoundPart
from .ops import ConversionError


def noise(*size: int, seed: int = 0) -> torch.Tensor:
    """Normal random numbers of a size, the same at every call."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def two_texts(vocab_size: int) -> dict[str, torch.Tensor]:
    """Two random texts, the second one shorter."""
    ids = torch.randint(vocab_size, (2, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


@contextmanager
def importable(repository: Path, packages: tuple[str, ...] = (), modules: tuple[str, ...] = ()) -> Iterator[None]:
    """Let top-level names be imported from a checkout, whatever else has them; undone at the end."""
    wanted = [f"{name}/" for name in packages] + [f"{name}.py" for name in modules]
    missing = [name for name in wanted if not (repository / name).exists()]
    if missing:
        raise ConversionError(f"{repository}: is no checkout of the original code, it lacks {', '.join(missing)}.")

    def ours(name: str) -> bool:
        return name.partition(".")[0] in (*packages, *modules)

    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
    sys.path.insert(0, str(repository))
    for name in packages:  # A package without `__init__.py` would give way to any other of its name.
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = [str(repository / name)]
    importlib.invalidate_caches()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ModuleNotFoundError as error:
        raise ConversionError(
            f"{repository}: the original code needs the package {error.name!r}: pip install {error.name}."
        ) from error
    finally:
        sys.path.remove(str(repository))
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(hidden)


@contextmanager
def recorded(blocks: Sequence[nn.Module], prefix: str) -> Iterator[dict[str, torch.Tensor]]:
    """The input of the first block and the output of every one, as `<prefix>hidden_states.<index>`."""
    stages: dict[str, torch.Tensor] = {}

    def keep(block: nn.Module, received: tuple[Any, ...], output: Any) -> None:
        index = numbers[block]
        if index == 0:
            stages[f"{prefix}hidden_states.0"] = received[0]
        stages[f"{prefix}hidden_states.{index + 1}"] = output

    numbers = {block: index for index, block in enumerate(blocks)}
    hooks = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield stages
    finally:
        for hook in hooks:
            hook.remove()


def filled(module: nn.Module, part: FoundPart, drops: Collection[str] = ()) -> nn.Module:
    """A module of the original with the tensors of a file but for `drops`, in float32 and evaluation mode."""
    module.load_state_dict({name: part.read(name).float() for name in part.names if name not in drops})
    return module.eval()
