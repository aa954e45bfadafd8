"""What a family tells the shared tests about itself. `tests/<family>/spec.py` holds one `SPEC` of this kind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

import vidformers
from vidformers.models.records import Family
from vidformers.video import uniform_indices

from .compare import pick, stages
from .tolerances import GOLDEN, Tolerance


Inputs = dict[str, Any]


class VideoSize(NamedTuple):
    """Size of an input video."""

    frames: int
    height: int
    width: int


@dataclass(frozen=True)
class OffSize:
    """An input size other than the configured one.

    Attributes:
        size: the input's.
        kept: what the model uses of it, counted from the video's start and the picture's top left, if not all.
    """

    size: VideoSize
    kept: VideoSize | None = None

    def __str__(self) -> str:
        return "x".join(map(str, self.size))


@dataclass(frozen=True)
class Tower:
    """A stack of blocks that records hidden states and attention probabilities in a model's output.

    Attributes:
        path: of the output that holds `hidden_states` and `attentions`; "" is the model's own.
        prefix: of these two names.
        config: dotted path of the configuration of the tower; "" is the model's own.
        rows: number of sequences that a video of some size is for the blocks.
        layers: configuration field that counts the blocks.
        width: configuration field of the hidden states' width.
        heads: configuration field of the attention heads.
        tokens: number of tokens for a configuration and an input size.
    """

    path: str
    layers: str
    width: str
    heads: str
    tokens: Callable[[PreTrainedConfig, VideoSize], int]
    prefix: str = ""
    config: str = ""
    rows: Callable[[PreTrainedConfig, VideoSize], int] = lambda config, size: 1

    def record(self, output: Any, kind: str) -> Any:
        """The tower's "hidden_states" or "attentions" in an output."""
        return pick(output, f"{self.path}.{self.prefix}{kind}".lstrip("."))


@dataclass(frozen=True)
class Stock:
    """The class of transformers that reads and writes the same directories.

    Attributes:
        config_class: name of its configuration.
        model_class: name of the model.
        config: fields of ours under which both compute the same.
        only_theirs: tensors that the other side has alone, by the beginning of their names, each with the reason.
        lacks: fields of ours that, where a preset sets them, make a model which the other side doesn't have.
        reshaped: outputs that the other side gives another shape, with the reason; their values are compared.
        disk_names: ends of names that its tensors have in memory, with what it writes to disk in their place.
        other_defaults: fields of ours whose default is another on purpose, with the reason.
    """

    config_class: str
    model_class: str
    config: Mapping[str, Any] = field(default_factory=dict)
    only_theirs: Mapping[str, str] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    reshaped: Mapping[str, str] = field(default_factory=dict)
    disk_names: Mapping[str, str] = field(default_factory=dict)
    other_defaults: Mapping[str, str] = field(default_factory=dict)

    def stored_shapes(self, model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
        """Shapes of the other side's tensors by their names on disk, without those that it has alone."""
        shapes = {}
        for name, tensor in model.state_dict().items():
            for end, written in self.disk_names.items():
                name = name.removesuffix(end) + written if name.endswith(end) else name
            if not self.has_alone(name):
                shapes[name] = tuple(tensor.shape)
        return shapes

    def has_alone(self, name: str) -> bool:
        """Whether the other side has a tensor that ours does without, for a reason that is given."""
        return name.startswith(tuple(self.only_theirs))

    def classes(self) -> tuple[type[PreTrainedConfig], type[PreTrainedModel]]:
        """Configuration and model class."""
        return getattr(transformers, self.config_class), getattr(transformers, self.model_class)


@dataclass(frozen=True)
class Export:
    """How a model goes through `torch.export`.

    Attributes:
        dynamic_shapes: for every tensor of the inputs, which of its axes may vary, as `torch.export.Dim`s.
        example: batch and size of the inputs that it is traced with.
        other: batch and size of inputs that the exported program must then take.
    """

    dynamic_shapes: Callable[[], dict[str, Any]]
    example: tuple[int, VideoSize]
    other: tuple[int, VideoSize]


@dataclass(frozen=True)
class Called:
    """How a model calls some of its modules, where it isn't once with the batch. Of several entries the first counts.

    Attributes:
        modules: pattern of their names.
        reason: why.
        rows: for the model's configuration and an input size, what the batch is multiplied by in each of their calls;
            `None` in one that takes nothing of the batch.
        call: pattern of the ways to call the model ("default" and the names of `ModelSpec.calls`).
    """

    modules: str
    reason: str
    rows: Callable[[PreTrainedConfig, VideoSize], Sequence[int | None]]
    call: str = "*"


@dataclass(frozen=True)
class Similarity:
    """An output of dot products of two other ones. Rounding grows with their lengths, however small the products are.

    Attributes:
        left: dotted path of (A, D) vectors.
        right: dotted path of (B, D) vectors.
        scale: what a model multiplies the products by.
    """

    left: str
    right: str
    scale: Callable[[PreTrainedModel], float] = lambda model: 1.0

    def magnitude(self, model: PreTrainedModel, states: Mapping[str, torch.Tensor]) -> float:
        """The largest that a product could be."""
        lengths = (states[path].norm(dim=-1).max().item() for path in (self.left, self.right))
        return abs(self.scale(model)) * prod(lengths)


@dataclass(frozen=True)
class ModelSpec:
    """One model class of a family.

    Attributes:
        name: of the class in `vidformers`.
        inputs: keyword arguments for (configuration, batch, size, seed); the batch is the tensors' first axis.
        output: dotted path of the output that a user of this class wants first.
        output_shape: its shape for (configuration, batch, size).
        config: fields on top of the family's tiny configuration, or all of them with a `config_class`.
        config_class: name of the model's own configuration class, where it isn't the family's.
        towers: stacks of blocks that record states.
        training_inputs: further keyword arguments of a training step for (configuration, batch), such as labels.
        loss: scalar to minimise, from an output; the output's own `loss` by default.
        calls: further ways to call the model, by name: keyword arguments for (configuration, batch, size).
        stock: the counterpart in transformers, or the reason why there is none.
        export: how to export it, or the reason why it can't be.
        variant: what tells it apart from another entry of the same class.
        off_sizes: sizes besides the configured one that it must take.
        shallow: fields that leave few blocks of each kind, for what takes time for every block.
        idle: parameters that files hold and no output depends on, with the reason.
        orderless: axes of videos along which the order of the input doesn't count, with the reason.
        similarities: outputs that are dot products of others, by dotted path.
        called: modules that a call doesn't call once with the batch.
    """

    name: str
    inputs: Callable[[PreTrainedConfig, int, VideoSize, int], Inputs]
    output: str
    output_shape: Callable[[PreTrainedConfig, int, VideoSize], tuple[int, ...]]
    stock: Stock | str
    export: Export | str
    config: Mapping[str, Any] = field(default_factory=dict)
    config_class: str | None = None
    towers: tuple[Tower, ...] = ()
    training_inputs: Callable[[PreTrainedConfig, int], Inputs] = lambda config, batch: {}
    loss: Callable[[Any], torch.Tensor] = lambda output: output.loss
    calls: Mapping[str, Callable[[PreTrainedConfig, int, VideoSize], Inputs]] = field(default_factory=dict)
    variant: str = ""
    off_sizes: tuple[OffSize, ...] = ()
    shallow: Mapping[str, Any] = field(default_factory=dict)
    idle: Mapping[str, str] = field(default_factory=dict)
    orderless: Mapping[str, str] = field(default_factory=dict)
    similarities: Mapping[str, Similarity] = field(default_factory=dict)
    called: tuple[Called, ...] = ()

    def terms(self, model: PreTrainedModel, states: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Magnitudes of what outputs sum up, where sums may be much smaller, for [`assert_close`]."""
        return {name: entry.magnitude(model, states) for name, entry in self.similarities.items()}

    @property
    def label(self) -> str:
        """What tests call it."""
        return f"{self.name} {self.variant}".strip()

    @property
    def model_class(self) -> type[PreTrainedModel]:
        """The class itself."""
        return getattr(vidformers, self.name)


@dataclass(frozen=True)
class GoldenRun:
    """A model built from a golden case's checkpoint, and the recorded outputs that it must reproduce.

    Attributes:
        label: tells the runs of one case apart.
        arguments: for `load_original`, from the case's folder and hyper-parameters.
        outputs: from the model and the recorded inputs, outputs under their recorded names.
    """

    label: str
    arguments: Callable[[Path, Mapping[str, Any]], dict[str, Any]]
    outputs: Callable[[PreTrainedModel, Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class GoldenCase:
    """Inputs and outputs recorded from the original code, in one folder.

    Attributes:
        folder: its name.
        runs: what reproduces them.
        committed: whether the repository holds it; the others need `$VIDFORMERS_GOLDENS`.
        unread: recorded outputs that no run gives, with the reason.
        blind: original tensors on which no recorded output depends, with the reason.
        faint: original tensors on which outputs depend so little that it may or may not show, with the reason.
        counted: for outputs of which not every entry means something, a mask of those that do, from the inputs.
        tolerance: how far our outputs may be from the recorded ones.
    """

    folder: str
    runs: tuple[GoldenRun, ...]
    committed: bool = False
    unread: Mapping[str, str] = field(default_factory=dict)
    blind: Mapping[str, str] = field(default_factory=dict)
    faint: Mapping[str, str] = field(default_factory=dict)
    counted: Mapping[str, Callable[[Mapping[str, torch.Tensor]], torch.Tensor]] = field(default_factory=dict)
    tolerance: Tolerance = GOLDEN


@dataclass(frozen=True)
class ProcessorSpec:
    """The family's video processor.

    Attributes:
        arguments: for a tiny output.
        output: name of the pixels that it returns.
        frame_shape: (channels, height, width) of what it returns then.
        normalized: what a byte value in each of the three channels becomes.
        indices: the frames that it takes, for (frames of the video, frames wanted).
        feeds: the model that takes what it returns and nothing else, where that isn't the family's first.
    """

    arguments: Mapping[str, Any]
    output: str
    frame_shape: tuple[int, int, int]
    normalized: Callable[[tuple[int, int, int]], tuple[float, float, float]]
    indices: Callable[[int, int], np.ndarray] = uniform_indices
    feeds: ModelSpec | None = None


@dataclass(frozen=True)
class FamilySpec:
    """A family, as the shared tests see it.

    Attributes:
        family: its record.
        tiny: configuration fields of a small model whose attention is far from uniform (`initializer_range`).
        size: the input size that `tiny` is configured for.
        models: its model classes, but for those `tested_apart`.
        tested_apart: model classes that have tests of their own instead, with the reason.
        processor: its video processor.
        goldens: recorded cases.
        later_goldens: cases that are recorded but that no model reproduces here, with the reason.
        unused_sizes: configured sizes that must not change the output of `models[0]`, where positions extrapolate.
        sharpened: factors of parameters, by patterns of their names, where initialization leaves attention all but
            uniform.
        samples: values of fields, one of each type, where a type alone does not tell a valid one.
        fixed: values of parameters, by patterns of their names, that the original has no tensor for.
        own_layers: names of classes with a weight that aren't torch's, with what they compute differently.
        many_frames: a video of so many frames that 16-bit positions would coincide.
        machine_code: whether its first model is the one that goes all the way through torch's compiler.
        skips: tests that cannot apply, "test_name" or "test_name[Model]", with the reason.
        goldens_folder: folder of the recorded cases, where it isn't named after the family.
        committed_folder: likewise, of those that the repository holds.
    """

    family: Family
    tiny: Mapping[str, Any]
    size: VideoSize
    models: tuple[ModelSpec, ...]
    processor: ProcessorSpec
    goldens: tuple[GoldenCase, ...]
    many_frames: VideoSize
    unused_sizes: Mapping[str, Any] = field(default_factory=dict)
    sharpened: Mapping[str, float] = field(default_factory=dict)
    samples: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fixed: Mapping[str, float] = field(default_factory=dict)
    own_layers: Mapping[str, str] = field(default_factory=dict)
    later_goldens: Mapping[str, str] = field(default_factory=dict)
    tested_apart: Mapping[str, str] = field(default_factory=dict)
    machine_code: bool = False
    skips: Mapping[str, str] = field(default_factory=dict)
    goldens_folder: str | None = None
    committed_folder: str | None = None

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        """The family's configuration class."""
        return getattr(vidformers, self.family.config_class)

    @property
    def processor_class(self) -> type:
        """The family's video processor class."""
        return getattr(vidformers, self.family.video_processor_class)

    def config(self, model: ModelSpec | None = None, **fields: Any) -> PreTrainedConfig:
        """The tiny configuration, of a model where one is given, with some fields changed."""
        if model is not None and model.config_class:
            return getattr(vidformers, model.config_class)(**{**model.config, **fields})
        return self.config_class(**{**self.tiny, **(model.config if model else {}), **fields})

    def config_classes(self) -> list[type[PreTrainedConfig]]:
        """Configuration classes of all models."""
        return list(dict.fromkeys(type(self.config(model)) for model in self.models))

    def build(self, model: ModelSpec, seed: int = 0, attention: str = "eager", **fields: Any) -> PreTrainedModel:
        """A tiny model in evaluation mode with seeded weights, none of them zero unless `fixed` says so."""
        torch.manual_seed(seed)
        built = model.model_class(self.config(model, attn_implementation=attention, **fields)).eval()
        randomise(built, seed)
        with torch.no_grad():
            for name, parameter in built.named_parameters():
                for pattern, factor in self.sharpened.items():
                    parameter *= factor if fnmatch(name, pattern) else 1.0
                for pattern, value in self.fixed.items():
                    if fnmatch(name, pattern):
                        parameter.fill_(value)
        return built

    def inputs(
        self, model: ModelSpec, batch: int = 2, size: VideoSize | None = None, seed: int = 0, **fields: Any
    ) -> Inputs:
        """Inputs of the configured size, or of another one."""
        return model.inputs(self.config(model, **fields), batch, size or self.size, seed)


def randomise(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Add noise to parameters that start as constants (biases, norms, mask tokens), so that each one matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() and (parameter == parameter.flatten()[0]).all():
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def all_states(model: PreTrainedModel, inputs: Inputs, **switches: Any) -> dict[str, torch.Tensor]:
    """Every tensor of an output, hidden states included, without gradients."""
    with torch.no_grad():
        recorded = {"output_hidden_states": True} if getattr(model, "records_states", True) else {}
        return stages(model(**inputs, **{**recorded, **switches}))


def to_device(inputs: Inputs, device: torch.device) -> Inputs:
    """Inputs with tensors on a device, those in lists too."""

    def move(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [move(each) for each in value]
        return value.to(device) if isinstance(value, torch.Tensor) else value

    return {name: move(value) for name, value in inputs.items()}


def to_dtype(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Inputs with floating tensors in another dtype."""
    return {
        name: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }
