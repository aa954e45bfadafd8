"""What a family's record says of it: its classes, and the published checkpoints that can be converted.

Records hold names and numbers alone, so that importing them loads no model code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A published original checkpoint and what its tensors do not say.

    Attributes:
        source: URL of the original file; `None` where it is not public.
        config: configuration fields that differ from the family's defaults.
        checkpoint_keys: for each part of the model, the entry of the original file that holds its tensors.
        video_processor: arguments of the family's video processor.
        probe: URL of the classifier head that belongs on top, or `None`.
        architecture: name of the model class that the converted directory holds.
        license: license identifier of the repository that publishes the weights, `None` where nobody does.
        hub: repository of the Hub with what transformers made of the same file, where there is one.
    """

    source: str | None
    config: Mapping[str, Any]
    checkpoint_keys: Mapping[str, str]
    video_processor: Mapping[str, Any]
    architecture: str
    probe: str | None = None
    license: str | None = "mit"
    hub: str | None = None


@dataclass(frozen=True)
class ImageRecipe:
    """How a model is pre-trained on images beside clips. What isn't here is as for clips.

    Attributes:
        share: of the batches of a step. The first ones are of images, as many as it gives, rounded down.
        batch_size: images of a step, those of all processes together.
        crop_size: pixels of an image's side.
        masks: for each selection of tokens, arguments of the family's sampler.
        context_loss_weight: as for clips, in batches of images.
    """

    share: float
    batch_size: int
    crop_size: int
    masks: tuple[Mapping[str, Any], ...]
    context_loss_weight: float | None = None


@dataclass(frozen=True)
class Recipe:
    """How a model is pre-trained: what an original's configuration says, but for machines and data.

    Attributes:
        source: the original's file, by repository and commit.
        config: configuration fields of a new model; empty where the model of an earlier recipe is trained on.
        num_frames: frames of a clip.
        crop_size: pixels of a clip's side.
        batch_size: clips of a step, those of all processes together.
        steps: steps of the optimizer.
        learning_rate: its highest value.
        start_learning_rate: before the first step of the warm-up.
        final_learning_rate: at the end of the schedule.
        schedule: of the learning rate, a name in [`vidformers.training.schedules.SCHEDULES`].
        warmup_steps: steps of the warm-up.
        anneal_steps: steps of the last part of the schedule "warmup_stable_decay".
        schedule_scale: how much longer than the training all schedules are.
        weight_decay: before the first step.
        final_weight_decay: at the end of the schedule.
        betas: of AdamW.
        momentum: of the teacher, at first; unused without one.
        final_momentum: at the end of the schedule.
        masks: for each selection of tokens, arguments of the family's sampler.
        loss: configuration fields of the loss, whatever the model was trained with before.
        context_loss_weight: weight of the loss of context tokens in the end, where the model has one.
        context_loss_steps: where this weight begins to rise from 0, and where it is reached, by default at once.
        images: what is learned from images beside the clips, `None` where there are none.
        fps: frames a second, of a video's own rate every so-manieth; or
        frame_step: every so-manieth frame, whatever the rate.
        resize_scale: least and greatest share of the area that a crop has.
        resize_aspect_ratio: its least and greatest width divided by height.
        flip: whether half of all clips are mirrored.
        data: the original's data sets and the share of each.
        notes: what a reader should know of these numbers.
    """

    source: str
    num_frames: int
    crop_size: int
    batch_size: int
    steps: int
    learning_rate: float
    masks: tuple[Mapping[str, Any], ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    start_learning_rate: float = 0.0
    final_learning_rate: float = 0.0
    schedule: str = "warmup_cosine"
    warmup_steps: int = 0
    anneal_steps: int = 0
    schedule_scale: float = 1.0
    weight_decay: float = 0.04
    final_weight_decay: float = 0.04
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.99925
    final_momentum: float = 0.99925
    loss: Mapping[str, Any] = field(default_factory=dict)
    context_loss_weight: float | None = None
    context_loss_steps: tuple[int, int] = (-1, 0)
    images: ImageRecipe | None = None
    fps: float | None = None
    frame_step: int | None = None
    resize_scale: tuple[float, float] = (0.3, 1.0)
    resize_aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    data: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A part of a family that has a configuration of its own, and with it an entry in the Auto classes.

    Attributes:
        model_type: `config.model_type`.
        config_class: name of the configuration class.
        auto_models: model class for each Auto class that serves the part.
        input: "videos", "images" or "text", what the part takes first.
        image_processor_class: name of the image processor class, or `None` for a part that takes no images.
        tokenizer_class: name of the tokenizer class, or `None` for a part without text.
        processor_class: name of the class that joins its processors, or `None` for a part with one of them.
    """

    model_type: str
    config_class: str
    auto_models: Mapping[str, str]
    input: str = "videos"
    image_processor_class: str | None = None
    tokenizer_class: str | None = None
    processor_class: str | None = None


@dataclass(frozen=True)
class Family:
    """A model family: the names under which its parts are found in `vidformers` and in the Auto classes.

    Attributes:
        model_type: `config.model_type`, also the name of the folder in `vidformers.models`.
        title: the family's name in prose.
        config_class: name of the configuration class.
        auto_models: model class for each Auto class that serves the family.
        video_processor_class: name of the video processor class.
        image_processor_classes: names of the class that takes videos as lists of images, its own first, then older
            ones; empty for a family without one.
        shared_processors: names of processor classes that directories of other families carry as well as this one's;
            the configuration of a directory says whose it is.
        contained_in: values of `config.model_type` of larger models that transformers has, with the name of the class
            that reads its part of their directories.
        remote_code: beginnings of values of `config.model_type` in directories that bring code of their own for a
            model of the family; the family's classes read them, and their code is not run.
        based_on: model types of families on whose classes this one is built; its room may import theirs.
        architectures: fields that a named architecture stands for, where configurations have a field `architecture`.
        other_models: model classes that no Auto class covers.
        model_modules: for classes outside the modules that are named after the family, such as
            `modeling_<model_type>.py`, the module of its room that defines them.
        functions: public functions of the family, with the module that defines each.
        presets: published checkpoints by name.
        recipes: how models of the family are pre-trained, by name; the first one is the usual one.
        original_files: what a person calls the files that presets are made from, by the model class that they make.
        paper: the paper's address.
        parts: towers that are models by themselves, with configurations of their own.
        tokenizer_class: name of the tokenizer class, or `None` for a family without one of its own.
        processor_class: name of the class that joins tokenizer and video processor, or `None`.
    """

    model_type: str
    title: str
    config_class: str
    auto_models: Mapping[str, str]
    video_processor_class: str
    other_models: tuple[str, ...] = ()
    model_modules: Mapping[str, str] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    original_files: Mapping[str, str] = field(default_factory=dict)
    paper: str = ""
    parts: tuple[Part, ...] = ()
    tokenizer_class: str | None = None
    processor_class: str | None = None
    image_processor_classes: tuple[str, ...] = ()
    shared_processors: tuple[str, ...] = ()
    contained_in: Mapping[str, str] = field(default_factory=dict)
    remote_code: tuple[str, ...] = ()
    based_on: tuple[str, ...] = ()
    architectures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def model_classes(self) -> tuple[str, ...]:
        """Names of all model classes of the family, each once."""
        of_parts = [name for part in self.parts for name in part.auto_models.values()]
        return tuple(dict.fromkeys([*self.auto_models.values(), *of_parts, *self.other_models]))

    @property
    def image_processor_class(self) -> str | None:
        """Name of the class that takes videos as lists of images, if there is one."""
        return next(iter(self.image_processor_classes), None)

    @property
    def model_types(self) -> tuple[str, ...]:
        """Values of `config.model_type` that the family's configurations have, its own first."""
        return (self.model_type, *(part.model_type for part in self.parts))

    def own_model_type(self, model_type: str | None) -> str | None:
        """A `config.model_type` in the family's own words, `None` if it isn't the family's."""
        if model_type and model_type.startswith(self.remote_code):
            return self.model_type
        return model_type if model_type in self.model_types else None

    @property
    def input(self) -> str:
        """What the family's own model takes first, as for its parts: always videos."""
        return "videos"

    def record(self, model_type: str) -> "Family | Part":
        """What is entered under a `config.model_type`: the family itself or a part of it."""
        return next(entry for entry in (self, *self.parts) if entry.model_type == model_type)

    @property
    def config_classes(self) -> tuple[str, ...]:
        """Names of all configuration classes of the family, its own first."""
        return (self.config_class, *(part.config_class for part in self.parts))

    @property
    def modules(self) -> dict[str, str]:
        """For each public name of the family, the module that defines it, relative to the family's package."""
        stem = self.config_class.removesuffix("Config")
        records = (self, *self.parts)
        names = {
            "configuration": self.config_classes,
            "video_processing": (self.video_processor_class,),
            "image_processing": [*self.image_processor_classes, *(part.image_processor_class for part in self.parts)],
            "tokenization": [record.tokenizer_class for record in records],
            "processing": [record.processor_class for record in records],
            "modeling": (f"{stem}PreTrainedModel", *self.model_classes),
        }
        modules = {name: f"{module}_{self.model_type}" for module, names in names.items() for name in names if name}
        return {name: f".{module}" for name, module in {**modules, **self.model_modules, **self.functions}.items()}
