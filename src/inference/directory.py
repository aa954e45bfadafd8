"""A directory or Hub repository with a model of ours: what is in it, and its base model."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor, PreTrainedConfig
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.utils import logging

from vidformers.families import FAMILIES, PROBE
from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.models.records import Family, Part


@dataclass(frozen=True)
class Directory:
    """A directory or repository with a model, and what loads the part of it that videos need.

    Attributes:
        path: what `from_pretrained` takes.
        config: configuration of the base model.
        model_class: class of the base model.
        processor_class: class that loads its processors.
        record: the entry of the family's record that the base model belongs to.
        input: "videos", "images" or "text", what the base model takes first.
        revision: branch or commit of a repository on the Hub.
    """

    path: str | os.PathLike
    config: PreTrainedConfig
    model_class: type[VideoPreTrainedModel]
    processor_class: type
    record: Family | Part
    input: str
    revision: str = "main"

    @classmethod
    def open(cls, path: str | os.PathLike, revision: str = "main") -> "Directory":
        """Read the configuration. Of a larger model's directory, such as PE-AV's, a family's part is taken.

        Args:
            path, revision: what `from_pretrained` takes.

        Returns:
            The directory. No weights are loaded yet.

        Raises:
            OSError: there is no such directory, and no such repository.
            ValueError: it holds a model of another kind.
        """
        package = import_module("vidformers")
        read = _read_config(path, revision)
        model_type = read.get("model_type")
        if model_type == PROBE.model_type:
            model_class = getattr(package, PROBE.auto_models["AutoModel"])
            config = model_class.config_class.from_pretrained(path, revision=revision)
            return cls(path, config, model_class, AutoVideoProcessor, PROBE, PROBE.input, revision)
        for family in FAMILIES.values():
            if model_type in family.contained_in:
                model_class = getattr(package, family.contained_in[model_type])
                processor_class = getattr(package, family.processor_class)
            elif own_type := family.own_model_type(model_type):
                usual = getattr(package, family.record(own_type).auto_models["AutoModel"])
                model_class = _class_for_features(read, usual)
                processor_class = AutoProcessor
            else:
                continue
            config = model_class.config_class.from_pretrained(path, revision=revision)
            record = family.record(config.model_type)
            takes = "videos" if record is family else record.input
            return cls(path, config, model_class, processor_class, record, takes, revision)
        known = ", ".join(name for family in FAMILIES.values() for name in (*family.model_types, *family.contained_in))
        raise ValueError(f"{path}: expected a model of one of the types {known}, got {model_type!r}.")

    @classmethod
    def open_for_videos(cls, path: str | os.PathLike, revision: str = "main") -> "Directory":
        """As [`~Directory.open`], of a model that embeds videos; one of images averages over their frames.

        Raises:
            OSError: there is no such directory, and no such repository.
            ValueError: it holds a model of texts, or of another kind.
        """
        opened = cls.open(path, revision)
        if opened.input == "text":
            raise ValueError(f"{path}: {opened.model_class.__name__} does not embed videos; it takes text.")
        return opened

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of a classifier of videos in the order of its logits; `None` where it holds another model."""
        classifier = self.record.auto_models.get("AutoModelForVideoClassification")
        if classifier not in (self.config.architectures or ()):
            return None
        return tuple(self.config.id2label[number] for number in sorted(self.config.id2label))

    def load_model(self, dtype: torch.dtype, *, features_only: bool = False) -> VideoPreTrainedModel:
        """The base model in evaluation mode, of a classifier the encoder alone.

        Args:
            dtype: type of its weights.
            features_only: leave out the parts that features of videos don't need.

        Raises:
            ValueError: the directory lacks weights of the model.
        """
        config = self.model_class.for_features(self.config) if features_only else self.config
        with loading_unreported():  # what the base model has no use for is left unread on purpose
            model, found = self.model_class.from_pretrained(
                self.path, config=config, dtype=dtype, output_loading_info=True, revision=self.revision
            )
        if found["missing_keys"]:
            raise ValueError(f"{self.path}: lacks the weights {', '.join(sorted(found['missing_keys']))}.")
        return model.eval()


@contextmanager
def loading_unreported() -> Iterator[None]:
    """Let transformers say nothing of weights that are new or left out; the caller does."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def new_and_left_out(found: Mapping[str, Any]) -> str:
    """What is new in a model that was loaded, and what of the directory was left out, in a line.

    Args:
        found: the loading information of `from_pretrained`.
    """
    new = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    return f"New: {_in_groups(new)}. Left out: {_in_groups(set(found['unexpected_keys']))}."


def _in_groups(names: set[str]) -> str:
    """Tensors in a few words: the modules that they are in, and how many there are of each."""
    modules = [name.partition(".")[0] for name in names]
    counts = {module: modules.count(module) for module in sorted(set(modules))}
    return ", ".join(f"{module} ({count} tensors)" for module, count in counts.items()) or "nothing"


def _class_for_features(config: dict[str, Any], usual: type[VideoPreTrainedModel]) -> type[VideoPreTrainedModel]:
    """The directory's own class, if that encodes frames one by one and the usual one doesn't."""
    names = config.get("architectures") or ()
    own = getattr(import_module("vidformers"), names[0], None) if names else None
    separately = getattr(own, "encodes_frames_separately", False) and not usual.encodes_frames_separately
    return own if separately else usual


def _read_config(path: str | os.PathLike, revision: str) -> dict[str, Any]:
    """What a directory's or repository's config.json holds.

    Raises:
        OSError: there is no such file; the message says what was looked for, and which directory has a name like it.
    """
    path = Path(path)
    if path.is_file():
        raise NotADirectoryError(f"{path}: is a file. Give the directory that it is in.")
    could_be_on_the_hub = not path.is_dir() and not path.is_absolute() and len(path.parts) <= 2
    try:
        if path.is_dir() or could_be_on_the_hub:
            return PreTrainedConfig.get_config_dict(path.as_posix(), revision=revision)[0]
        cause = None
    except OSError as error:
        cause = error
    if path.is_dir():
        raise FileNotFoundError(
            f"{path}: holds no readable config.json, so no model can be loaded from it."
        ) from cause
    message = f"{path}: there is no such directory"
    if could_be_on_the_hub:
        message += ", and no such repository on the Hub that can be reached from here"
    siblings = [each.parent.name for each in path.parent.glob("*/config.json")]
    closest = get_close_matches(path.name, siblings, n=1)
    remedy = (
        f"Did you mean {path.with_name(closest[0])}?"
        if closest
        else (
            "Give a directory that holds a model, or the name of a repository, such as facebook/vjepa2-vitl-fpc64-256."
        )
    )
    raise FileNotFoundError(f"{message}. {remedy}") from cause
