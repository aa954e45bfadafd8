"""What conversion knows of original files: the forms that they come in, and the rules that carry their tensors.

A `Form` is one kind of file. It names the entries that hold its tensors, has a fingerprint, reads configuration
fields from shapes, and yields a `Rule` for every tensor. The same rules serve conversion, its reverse, the check of
names and shapes, and the table in the docs.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import nextafter
from typing import Any

import torch

from .ops import Copy, Op


COPY = Copy()

WRAPPERS = re.compile(r"^(module\.|backbone\.|_orig_mod\.)*")
"""What training code puts before the names of all tensors of a state dict: DDP and the like, a wrapper, compile."""

TRAINING_STATE: Mapping[str, str] = {
    **dict.fromkeys(("opt", "optimizer", "optimizers", "optimizer_states"), "state of the optimizer"),
    **dict.fromkeys(("scaler", "loss_scaler", "grad_scaler", "amp"), "state of the gradient scaler"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedulers", "wd_scheduler"), "state of a schedule"),
    **dict.fromkeys(("rng", "rng_state", "rng_states", "random_state", "cuda_rng_state"), "state of random numbers"),
    **dict.fromkeys(("args", "config", "cfg", "hyper_parameters", "callbacks", "loops"), "settings of the training"),
    **dict.fromkeys(("epoch", "step", "global_step", "iteration", "iter", "loss", "lr"), "progress of the training"),
    **dict.fromkeys(("best_acc", "best_metric", "batch_size", "world_size"), "progress of the training"),
}
"""What a training run leaves beside weights, in files of any family: names at the top of a file, with the reason."""


# ------------------------------------------------------------------------------------------------------------- rules


Names = str | Iterable[str]
"""A name, or several."""


@dataclass(init=False)
class Rule:
    """Which of our tensors come from which of the original's.

    Attributes:
        ours: names in our model's state dict; none for tensors that are left out on purpose, which may be absent.
        theirs: names in the form's namespace; none for a tensor that the original doesn't have.
        op: the operation from theirs to ours.
        why: why it isn't a plain copy; needed for every other operation and for what is left out.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    op: Op
    why: str

    def __init__(self, ours: Names, theirs: Names, op: Op = COPY, why: str = ""):
        self.ours, self.theirs, self.op, self.why = _names(ours), _names(theirs), op, why
        if not why and (not self.ours or not self.theirs or not isinstance(op, Copy)):
            raise ValueError(f"the rule for {', '.join(self.ours or self.theirs)} is no plain copy and needs a `why`.")


def linear(ours: Names, theirs: Names, op: Op = COPY, why: str = "", bias: bool = True) -> Iterator[Rule]:
    """The rules of the weight and, where it has one, the bias of a layer or a norm."""
    for leaf in ("weight", "bias") if bias else ("weight",):
        yield Rule(*([f"{name}.{leaf}" for name in _names(side)] for side in (ours, theirs)), op, why)


def linears(names: Mapping[str, str]) -> Iterator[Rule]:
    """The rules of layers and norms with biases, from our names of them to theirs."""
    for ours, theirs in names.items():
        yield from linear(ours, theirs)


def under(rules: Iterable[Rule], ours: str, theirs: str = "") -> Iterator[Rule]:
    """The rules of a part, whose names begin with `ours` and `theirs` in the whole."""
    for each in rules:
        yield Rule([ours + name for name in each.ours], [theirs + name for name in each.theirs], each.op, each.why)


def leave_out(rules_or_names: Iterable[Rule | str], why: str) -> Iterator[Rule]:
    """Rules that leave out the originals of other rules, or tensors by their names."""
    for entry in rules_or_names:
        yield Rule((), entry if isinstance(entry, str) else entry.theirs, why=why)


def _names(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


# ------------------------------------------------------------------------------------------------------------- forms


@dataclass(frozen=True)
class Bounded:
    """What shapes say of a field without fixing it: `value`, unless another one is given that `fits`, as any may."""

    value: Any
    fits: Callable[[Any], bool] = lambda given: True


class Shapes(dict[str, tuple[int, ...]]):
    """Shapes of tensors by their names in a form's namespace; `asked` is the one last asked for, for errors."""

    asked = ""

    def __getitem__(self, name: str) -> tuple[int, ...]:
        self.asked = name
        return super().__getitem__(name)

    def get(self, name: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        self.asked = name if name in self else self.asked
        return super().get(name, default)

    def count(self, pattern: str) -> int:
        """How many tensors of a numbered name there are, from 0 on without a gap; "{}" is the number."""
        count = 0
        while pattern.format(count) in self:
            count += 1
        return count

    def ratio(self, name: str) -> Bounded:
        """Rows over columns of a layer whose width models compute as `int(columns * ratio)`."""
        rows, columns = self[name]
        ratio = rows / columns
        ratio = ratio if int(columns * ratio) == rows else nextafter(ratio, float("inf"))
        return Bounded(ratio, lambda given: int(columns * given) == rows)


@dataclass(frozen=True)
class Entry:
    """A state dict of original files.

    Attributes:
        places: paths at which files hold it, such as "state_dict"; of several that a file has the first is taken.
            "" is the top of a flat file. "{index}" is the index in a list.
        versions: paths of other versions of it, which are read only on request (a checkpoint key).
        file: "checkpoint" or "probe", the two files that users hold.
        prefix: what files put before the names of its tensors, for `reverse`.
    """

    places: tuple[str, ...] = ("",)
    versions: tuple[str, ...] = ()
    file: str = "checkpoint"
    prefix: str = ""

    @property
    def all_places(self) -> tuple[str, ...]:
        """Its places, those of its versions last."""
        return (*self.places, *self.versions)


class Form:
    """One form in which a family's original files come; subclasses stand in `<family>/checkpoint.py`.

    A form has a namespace: a tensor that a file calls `target_encoder/module.norm.weight` is `encoder/norm.weight`
    for a form with the entry "encoder" at `target_encoder`. Names under an entry "" have no such beginning.

    Attributes:
        family: `model_type` of the family.
        title: what a person calls the file, such as "V-JEPA 2 hub file".
        architecture: name of the model class that it makes.
        on_request: whether it is left aside unless its class is asked for, because it leaves out what another has.
        entries: the state dicts that it reads, by the beginnings of their names in the namespace.
        fingerprint: names of the namespace that only this form has; all must be there.
        absent: names that it doesn't have, and by which files of another family with its fingerprint are told apart.
        left_out: sections of the file that no model reads, with the reason: places, or beginnings of names of the
            namespace up to a dot or slash.
        required: dotted paths of configuration fields that no shape tells and no default is right for.
        new_modules: modules of our model, where it has them, that no file holds and that start as in a new model.
        label_rows: tensors with a row for each class, of which a part may be kept, by the names of the classes.
        settings_file: name of a JSON file beside the checkpoint that `read_settings` reads.
    """

    family: str
    title: str
    architecture: str
    on_request: bool = False
    entries: Mapping[str, Entry] = {}
    fingerprint: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    left_out: Mapping[str, str] = {}
    required: tuple[str, ...] = ()
    new_modules: tuple[str, ...] = ()
    label_rows: tuple[str, ...] = ()
    settings_file: str | None = None

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        """Configuration fields that the shapes fix, nested, or bound (`Bounded`); one given otherwise is an error."""
        raise NotImplementedError

    def rules(self, config: Any) -> Iterator[Rule]:
        """The rules of all tensors of a model with this configuration, and of what is left out on purpose."""
        raise NotImplementedError

    def processor_settings(self, config: Any) -> dict[str, Any]:
        """Arguments of the video and the image processor that follow from the configuration."""
        return {}

    def read_settings(self, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What `settings_file` tells: configuration fields, nested, and arguments of the video processor."""
        return {}, {}

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it is made from."""
        return tuple(dict.fromkeys(entry.file for entry in self.entries.values()))

    def split(self, name: str) -> tuple[str, str]:
        """The entry that a name of the namespace stands in, and its name there."""
        key, _, bare = name.partition("/")
        return (key, bare) if key in self.entries else ("", name)


def forms_of(family: str) -> tuple[Form, ...]:
    """The forms in which a family's files come, the more special ones first."""
    return import_module(f"{__package__}.{family}.checkpoint").FORMS


def section(name: str, sections: Iterable[str]) -> str | None:
    """Which of some sections a tensor stands in, by its name or the beginning of it up to a dot or slash."""
    return next((each for each in sections if name == each or name.startswith((f"{each}.", f"{each}/"))), None)


# ------------------------------------------------------------------------------------------ check, convert, reverse


def their_shapes(rules: Iterable[Rule], ours: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shape that each original tensor must have, from the shapes of ours; nothing of what is left out."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in rules:
        if entry.ours:
            originals = entry.op.inverse([torch.empty(ours[name], device="meta") for name in entry.ours])
            shapes.update(zip(entry.theirs, (tuple(tensor.shape) for tensor in originals), strict=True))
    return shapes


def check_ours(rules: Iterable[Rule], ours: Iterable[str]) -> list[str]:
    """Where rules and our model differ in the tensors that there are, a line for each."""
    made = {name for entry in rules for name in entry.ours}
    ours = list(ours)
    return [f"{name}: a tensor of our model that no rule makes" for name in ours if name not in made] + [
        f"{name}: made by a rule, but our model has no such tensor" for name in sorted(made - set(ours))
    ]


def check_theirs(
    rules: Sequence[Rule], found: Mapping[str, tuple[int, ...]], ours: Mapping[str, tuple[int, ...]]
) -> dict[str, list[tuple[str, str]]]:
    """What keeps tensors of a file from being converted: names and what is wrong, by kind of problem.

    Both the file's tensors and ours are given by their names and shapes, the former in the form's namespace.
    """
    expected = their_shapes(rules, ours)
    left_out = {name for entry in rules if not entry.ours for name in entry.theirs}
    missing, misshapen, unknown = [], [], []
    for name, shape in expected.items():
        if name not in found:
            missing.append((name, f"missing (expected shape {list(shape)})"))
        elif tuple(found[name]) != shape:
            misshapen.append((name, f"expected shape {list(shape)}, found shape {list(found[name])}"))
    for name, shape in found.items():
        if name not in expected and name not in left_out:
            unknown.append((name, f"not expected (found shape {list(shape)})"))
    return {"missing": missing, "of another shape": misshapen, "not expected": unknown}


def convert(rules: Iterable[Rule], read: Callable[[str], torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Our tensors one by one, as views of what `read(their name)` returns."""
    for entry in rules:
        if entry.ours:
            # Nothing here may outlive its turn: an array can hold the blocks of a whole stack.
            yield from zip(entry.ours, entry.op.forward([read(name) for name in entry.theirs]), strict=True)


def reverse(rules: Iterable[Rule], read: Callable[[str], torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The original tensors one by one, from ours by `read(our name)`, without those that conversion leaves out."""
    for entry in rules:
        if entry.ours:
            originals = entry.op.inverse([read(name) for name in entry.ours])
            yield from ((name, tensor.contiguous()) for name, tensor in zip(entry.theirs, originals, strict=True))
