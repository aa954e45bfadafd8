"""Checkpoint maps: tables of rules that carry tensors between an original state dict and ours, in both directions.

A `Rule` pairs names of our tensors with names of the original's through an invertible operation. The counts of a
configuration expand a table into exact pairs of names; the shapes of the original tensors follow from the shapes of
ours by running each operation backwards on the meta device. Every tensor is accounted for: nothing is matched by
pattern, and what no rule reads or drops is an error.

    rules --expand(config)--> pairs --check--> convert: original → ours
                                          \\--> reverse: ours → original
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from .ops import ConversionError


Tensors = list[torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]


# ------------------------------------------------------------------------------------------------------ operations


@dataclass(frozen=True)
class Op:
    """An invertible operation on lists of tensors; it returns views where it can and runs on the meta device."""

    def forward(self, tensors: Tensors) -> Tensors:
        """Original tensors → ours."""
        raise NotImplementedError

    def inverse(self, tensors: Tensors) -> Tensors:
        """Our tensors → the original's."""
        raise NotImplementedError

    def bind(self, config: Any) -> "Op":
        """The operation with names of configuration fields replaced by their values."""
        return self


@dataclass(frozen=True)
class Copy(Op):
    """The same tensor."""

    def forward(self, tensors: Tensors) -> Tensors:
        return tensors

    def inverse(self, tensors: Tensors) -> Tensors:
        return tensors


@dataclass(frozen=True)
class Transpose(Op):
    """Axes in another order: axis `i` of ours is axis `axes[i]` of the original."""

    axes: tuple[int, ...] = (1, 0)

    def forward(self, tensors: Tensors) -> Tensors:
        return [tensor.permute(self.axes) for tensor in tensors]

    def inverse(self, tensors: Tensors) -> Tensors:
        back = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return [tensor.permute(back) for tensor in tensors]


@dataclass(frozen=True)
class Reshape(Op):
    """Another shape for the same values in row-major order.

    Both shapes are given, so that both directions are known; an entry is a number or a configuration field.
    """

    original: tuple[int | str, ...]
    ours: tuple[int | str, ...]

    def forward(self, tensors: Tensors) -> Tensors:
        return [tensor.reshape(self.ours) for tensor in tensors]

    def inverse(self, tensors: Tensors) -> Tensors:
        return [tensor.reshape(self.original) for tensor in tensors]

    def bind(self, config: Any) -> "Reshape":
        numbers = [
            tuple(lookup(config, size) if isinstance(size, str) else size for size in shape)
            for shape in (self.original, self.ours)
        ]
        return Reshape(*numbers)


@dataclass(frozen=True)
class Split(Op):
    """A tensor cut into `parts` equal pieces along `axis` (a fused q, k, v projection, for one)."""

    parts: int
    axis: int = 0

    def forward(self, tensors: Tensors) -> Tensors:
        return [piece for tensor in tensors for piece in tensor.tensor_split(self.parts, dim=self.axis)]

    def inverse(self, tensors: Tensors) -> Tensors:
        groups = [tensors[start : start + self.parts] for start in range(0, len(tensors), self.parts)]
        return [torch.cat(group, dim=self.axis) for group in groups]


@dataclass(frozen=True)
class Unstack(Op):
    """One tensor per index of axis 0 (layers that were scanned)."""

    def forward(self, tensors: Tensors) -> Tensors:
        (stacked,) = tensors
        return list(stacked.unbind(0))

    def inverse(self, tensors: Tensors) -> Tensors:
        return [torch.stack(tensors)]


@dataclass(frozen=True)
class Stack(Op):
    """Several tensors of one shape as one, along a new axis 0."""

    def forward(self, tensors: Tensors) -> Tensors:
        return [torch.stack(tensors)]

    def inverse(self, tensors: Tensors) -> Tensors:
        (stacked,) = tensors
        return list(stacked.unbind(0))


@dataclass(frozen=True)
class Chain(Op):
    """Operations one after the other, in the direction original → ours."""

    steps: tuple[Op, ...]

    def forward(self, tensors: Tensors) -> Tensors:
        for step in self.steps:
            tensors = step.forward(tensors)
        return tensors

    def inverse(self, tensors: Tensors) -> Tensors:
        for step in reversed(self.steps):
            tensors = step.inverse(tensors)
        return tensors

    def bind(self, config: Any) -> "Chain":
        return Chain(tuple(step.bind(config) for step in self.steps))


@dataclass(frozen=True)
class Drop(Op):
    """An original tensor, possibly absent, that our model doesn't have. `reverse` leaves it out."""

    reason: str

    def forward(self, tensors: Tensors) -> Tensors:
        return []


@dataclass(frozen=True)
class Computed(Op):
    """An original tensor that our model computes: `table(config)` must equal it, and `reverse` writes it again."""

    table: Callable[[Any], torch.Tensor]
    config: Any = None

    def forward(self, tensors: Tensors) -> Tensors:
        (found,) = tensors
        expected = self.table(self.config)
        if found.shape != expected.shape or not torch.equal(found, expected.to(found.dtype)):
            raise ConversionError(
                f"a table of shape {tuple(found.shape)} is not what {self.table.__name__} gives (shape "
                f"{tuple(expected.shape)}): the model was trained with another one."
            )
        return []

    def inverse(self, tensors: Tensors) -> Tensors:
        return [self.table(self.config)]

    def bind(self, config: Any) -> "Computed":
        return Computed(self.table, config)


# ---------------------------------------------------------------------------------------------------- rules, pairs


Condition = str | tuple[str, Any]


@dataclass(frozen=True)
class Rule:
    """Which of our tensors come from which of the original's.

    Attributes:
        targets: names in our model; "{i}" stands for the index that `repeat` counts.
        sources: names in the original state dict, likewise.
        op: the operation from sources to targets.
        repeat: configuration field that says how often the rule applies. When only one of the two sides has "{i}",
            that side lists all indices at once (for `Stack` and `Unstack`). A field that is a list counts its entries.
        when: condition for the tensors to exist: a configuration field that must be true, or a pair (field, value)
            that must be so.
        unless: condition, likewise, under which they don't.
        start: the first index that `repeat` counts; `None` is the count itself, for what a file holds of a stack
            beyond the part that our model has.
        stop: the index after the last one; `None` is the count.
    """

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    op: Op = Copy()
    repeat: str | None = None
    when: Condition | None = None
    unless: Condition | None = None
    start: int | None = 0
    stop: int | None = None


class Pair(NamedTuple):
    """A rule for one index, with every name written out."""

    targets: tuple[str, ...]
    sources: tuple[str, ...]
    op: Op

    @property
    def is_optional(self) -> bool:
        """Whether the original may lack the tensor."""
        return isinstance(self.op, Drop)


def rule(target: str | tuple[str, ...], source: str | tuple[str, ...], op: Op = Copy(), **options: Any) -> Rule:
    """A `Rule` from names given alone or as tuples."""
    return Rule(_as_tuple(target), _as_tuple(source), op, **options)


def linear(
    target: str | tuple[str, ...],
    source: str | tuple[str, ...],
    op: Op = Copy(),
    *,
    bias_when: str | None = None,
    **options: Any,
) -> tuple[Rule, Rule]:
    """The rules of the weight and the bias of a layer; `bias_when` is the field that says whether it has a bias."""
    names = _as_tuple(target), _as_tuple(source)
    weight, bias = ([tuple(f"{name}.{leaf}" for name in side) for side in names] for leaf in ("weight", "bias"))
    return Rule(*weight, op, **options), Rule(*bias, op, **({"when": bias_when} if bias_when else {}), **options)


def drop(source: str, reason: str, **options: Any) -> Rule:
    """A rule that leaves `source` out, where it is present."""
    return Rule((), (source,), Drop(reason), **options)


def lookup(config: Any, path: str) -> Any:
    """What stands in a configuration at a path such as "vision_config.tubelet_size.1"; all of it at ""."""
    for name in path.split(".") if path else ():
        config = config[int(name)] if name.isdigit() else getattr(config, name)
    return config


def expand(rules: Iterable[Rule], config: Any, prefix: str = "") -> list[Pair]:
    """Write a table out for one configuration; `prefix` is put before the names of our tensors."""
    return [pair._replace(op=pair.op.bind(config)) for pair in expand_names(rules, config, prefix)]


def expand_names(rules: Iterable[Rule], counts: Any, prefix: str = "") -> list[Pair]:
    """`expand` for the names alone: `counts` needs the fields that rules repeat over and depend on, no others."""
    pairs = []
    for entry in rules:
        if entry.when is not None and not _holds(counts, entry.when):
            continue
        if entry.unless is not None and _holds(counts, entry.unless):
            continue
        targets = tuple(prefix + name for name in entry.targets)
        if entry.repeat is None:
            pairs.append(Pair(targets, entry.sources, entry.op))
        else:
            count = lookup(counts, entry.repeat)
            count = count if isinstance(count, int) else len(count or ())
            indices = range(*(count if end is None else end for end in (entry.start, entry.stop)))
            pairs += _repeat(targets, entry.sources, entry.op, indices)
    return pairs


def _holds(config: Any, condition: Condition) -> bool:
    if isinstance(condition, str):
        return bool(lookup(config, condition))
    field, value = condition
    return lookup(config, field) == value


def _repeat(targets: tuple[str, ...], sources: tuple[str, ...], op: Op, indices: range) -> list[Pair]:
    """One pair per index, or one pair over all indices where a side has none."""

    def at(names: tuple[str, ...], index: int) -> tuple[str, ...]:
        return tuple(name.replace("{i}", str(index)) for name in names)

    def over_all(names: tuple[str, ...]) -> tuple[str, ...]:
        if not any("{i}" in name for name in names):
            return names
        return tuple(name for index in indices for name in at(names, index))

    if all(any("{i}" in name for name in names) for names in (targets or sources, sources)):
        return [Pair(at(targets, index), at(sources, index), op) for index in indices]
    return [Pair(over_all(targets), over_all(sources), op)]


def _as_tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


# ------------------------------------------------------------------------------------------ check, convert, reverse


def source_shapes(pairs: Sequence[Pair], target_shapes: Shapes) -> dict[str, tuple[int, ...] | None]:
    """The shape that each original tensor must have, `None` where any will do.

    Args:
        target_shapes: the shapes of our model's tensors by name.
    """
    shapes: dict[str, tuple[int, ...] | None] = {}
    for pair in pairs:
        if not pair.targets:
            shapes.update(dict.fromkeys(pair.sources))
            continue
        ours = [torch.empty(target_shapes[name], device="meta") for name in pair.targets]
        shapes.update(zip(pair.sources, (tuple(t.shape) for t in pair.op.inverse(ours)), strict=True))
    return shapes


def check_targets(pairs: Iterable[Pair], target_shapes: Shapes) -> list[str]:
    """Where the rules and our model differ in the tensors that there are, one line per tensor."""
    made = {name for pair in pairs for name in pair.targets}
    return [f"{name}: a tensor of our model that no rule makes" for name in target_shapes if name not in made] + [
        f"{name}: made by a rule, but our model has no such tensor" for name in made if name not in target_shapes
    ]


def check_sources(pairs: Sequence[Pair], found: Shapes, target_shapes: Shapes) -> list[str]:
    """What keeps original tensors from being converted, one line per tensor.

    Args:
        pairs: the expanded table.
        found: shapes of the original tensors by name.
        target_shapes: shapes of our model's tensors by name.
    """
    problems = []
    expected = source_shapes(pairs, target_shapes)
    optional = {name for pair in pairs if pair.is_optional for name in pair.sources}
    for name, shape in expected.items():
        if name not in found:
            problems += [] if name in optional else [f"{name}: missing (expected {_shape(shape)})"]
        elif shape is not None and tuple(found[name]) != shape:
            problems.append(f"{name}: expected {_shape(shape)}, found {_shape(found[name])}")
    return problems + [
        f"{name}: not expected (found {_shape(shape)})" for name, shape in found.items() if name not in expected
    ]


def _shape(shape: tuple[int, ...] | None) -> str:
    return "any shape" if shape is None else f"shape {list(shape)}"


def convert(pairs: Iterable[Pair], read: Callable[[str], torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Our tensors one by one, as views of what `read(source name)` returns."""
    for pair in pairs:
        if pair.is_optional:
            continue
        # Nothing here may outlive its turn: an array can hold the blocks of a whole stack.
        yield from zip(pair.targets, pair.op.forward([read(name) for name in pair.sources]), strict=True)


def reverse(pairs: Iterable[Pair], read: Callable[[str], torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """The original tensors one by one, from ours by `read(target name)`; what a rule drops does not come back."""
    for pair in pairs:
        if pair.is_optional:
            continue
        original = pair.op.inverse([read(name) for name in pair.targets])
        yield from ((name, tensor.contiguous()) for name, tensor in zip(pair.sources, original, strict=True))


# ------------------------------------------------------------------------------------- what shapes say of the config


class Reader:
    """Reads a configuration field from the shapes of an original state dict; `tensor` names where it looks."""

    tensor: str

    def read(self, shapes: Shapes) -> Any:
        """The field's value."""
        raise NotImplementedError

    def agrees(self, given: Any, shapes: Shapes) -> bool:
        """Whether a value that the user or a preset gives can be true of these shapes."""
        return given == self.read(shapes)


@dataclass(frozen=True)
class Axis(Reader):
    """The length of one axis, or `absent` where that is given and there is no such tensor."""

    tensor: str
    axis: int
    absent: int | None = None

    def read(self, shapes: Shapes) -> int:
        if self.absent is not None and self.tensor not in shapes:
            return self.absent
        return shapes[self.tensor][self.axis]


@dataclass(frozen=True)
class Count(Reader):
    """How many tensors of a numbered name there are, from 0 on without a gap."""

    tensor: str

    def read(self, shapes: Shapes) -> int:
        count = 0
        while self.tensor.replace("{i}", str(count)) in shapes:
            count += 1
        return count


@dataclass(frozen=True)
class Present(Reader):
    """Whether there is such a tensor."""

    tensor: str

    def read(self, shapes: Shapes) -> bool:
        return self.tensor in shapes


@dataclass(frozen=True)
class Ratio(Reader):
    """The length of axis 0 over that of axis 1, for a layer whose width models compute as `int(width · ratio)`."""

    tensor: str

    def read(self, shapes: Shapes) -> float:
        rows, columns = shapes[self.tensor]
        ratio = rows / columns
        return ratio if int(columns * ratio) == rows else math.nextafter(ratio, math.inf)

    def agrees(self, given: float, shapes: Shapes) -> bool:
        rows, columns = shapes[self.tensor]
        return int(columns * given) == rows


# ------------------------------------------------------------------------------------------------ what a family has


@dataclass(frozen=True)
class Part:
    """One state dict of the original files: where it stands, its rules, and what its shapes say.

    Attributes:
        rules: the table; its sources are names inside the state dict, its targets names in the base model.
        entries: paths at which files hold it, the usual one first; "" is the top of the file. The index of an entry
            that is a list is written "{index}".
        spellings: what other ways of saving call the usual entry; the first that a file has is taken.
        file: "checkpoint" or "probe", the two files that users hold.
        fields: configuration fields that its shapes fix.
        prefix: what files put before the names of its tensors, for `reverse`.
        presence: configuration field that says whether the model has the part, if it may be absent: true, or a count
            that `fields` reads.
        required: configuration fields that no shape tells and no default is right for.
        marker: a tensor that tells the part from others that stand at the same entry, if there are such.
        under: what the names of its tensors begin with, where several parts share a state dict. A tensor is that of
            the part whose `under` fits the most of its name; the rules' sources are names without it.
        any_entry: whether `entries` are places of one and the same thing, so that the one that a file has is it.
    """

    rules: tuple[Rule, ...]
    entries: tuple[str, ...]
    fields: Mapping[str, Reader]
    spellings: tuple[str, ...] = ()
    prefix: str = ""
    file: str = "checkpoint"
    presence: str | None = None
    required: tuple[str, ...] = ()
    marker: str | None = None
    under: str = ""
    any_entry: bool = False


@dataclass(frozen=True)
class Layout:
    """The parts of which one of our model classes is made; a class has several where files come in several forms.

    Attributes:
        architecture: name of the model class.
        parts: for each part, what our model puts before the names of its tensors.
        optional: parts that the files may lack.
        configs: for each part whose fields belong to a sub-configuration, its dotted path.
        videos: path of the (sub-)configuration that the video processor follows, `None` for a model without videos.
        on_request: whether it is left aside unless its model class is asked for, because it leaves tensors out that
            another class has.
        initialised: modules of our model, where it has them, that no file holds and that start as in a new model.
        images: path of the (sub-)configuration that the image processor follows, `None` for a model without one.
    """

    architecture: str
    parts: Mapping[str, str]
    optional: tuple[str, ...] = ()
    configs: Mapping[str, str] = field(default_factory=dict)
    videos: str | None = ""
    on_request: bool = False
    initialised: tuple[str, ...] = ()
    images: str | None = None

    def config_of(self, part: str, config: Any) -> Any:
        """The (sub-)configuration that a part's fields belong to."""
        return lookup(config, self.configs.get(part, ""))

    def field(self, part: str, name: str) -> str:
        """The dotted path of a part's field in the model's configuration."""
        return ".".join([*filter(None, [self.configs.get(part)]), name])


@dataclass(frozen=True)
class FamilyMap:
    """Everything that conversion knows of a model family.

    Attributes:
        parts: its state dicts by name.
        layouts: its model classes, in the order in which they are tried.
        left_out: entries of the original files that hold tensors of no model, with the reason. A dotted name stands
            for all tensors whose names continue it.
        required: configuration fields that no shape tells and no default is right for.
        processor: arguments of the video processor and the fields of the layout's `videos` that they follow; those of
            the image processor, too, and of the layout's `images`.
        companion: reads the `config.json` that original directories hold beside the weights: configuration fields for
            each part, and arguments of the video processor under "video_processor"; nothing from files of others.
    """

    parts: Mapping[str, Part]
    layouts: tuple[Layout, ...]
    left_out: Mapping[str, str]
    required: tuple[str, ...]
    processor: Mapping[str, str]
    companion: Callable[[Mapping[str, Any]], Mapping[str, Mapping[str, Any]]] = lambda config: {}
