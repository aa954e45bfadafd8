"""A directory or Hub repository with a model of ours: what is in it, and its base model."""

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from transformers import AutoProcessor, PreTrainedConfig
from transformers.utils import logging

from vidformers.families import FAMILIES
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
    """

    path: str | os.PathLike
    config: PreTrainedConfig
    model_class: type[VideoPreTrainedModel]
    processor_class: type
    record: Family | Part
    input: str

    @classmethod
    def open(cls, path: str | os.PathLike) -> "Directory":
        """Read the configuration. Of a larger model's directory, such as PE-AV's, a family's part is taken.

        Args:
            path: what `from_pretrained` takes.

        Returns:
            The directory. No weights are loaded yet.

        Raises:
            OSError: there is no such directory, and no such repository.
            ValueError: it holds a model of another kind.
        """
        if not Path(path).is_dir() and (Path(path).is_absolute() or len(Path(path).parts) > 2):
            raise FileNotFoundError(
                f"{path}: there is no such directory. Give one that holds a model, or the name of a repository on the "
                "Hub, such as facebook/vjepa2-vitl-fpc64-256."
            )
        package = import_module("vidformers")
        model_type = PreTrainedConfig.get_config_dict(path)[0].get("model_type")
        for family in FAMILIES.values():
            if model_type in family.contained_in:
                model_class = getattr(package, family.contained_in[model_type])
                processor_class = getattr(package, family.processor_class)
            elif model_type in family.model_types:
                model_class = _base_class(path, getattr(package, family.record(model_type).auto_models["AutoModel"]))
                processor_class = AutoProcessor
            else:
                continue
            config = model_class.config_class.from_pretrained(path)
            record = family.record(config.model_type)
            takes = "videos" if record is family else record.input
            return cls(path, config, model_class, processor_class, record, takes)
        known = ", ".join(name for family in FAMILIES.values() for name in (*family.model_types, *family.contained_in))
        raise ValueError(f"{path}: expected a model of one of the types {known}, got {model_type!r}.")

    def load_model(self, dtype: torch.dtype, *, features_only: bool = False) -> VideoPreTrainedModel:
        """The base model in evaluation mode, of a classifier the encoder alone.

        Args:
            dtype: type of its weights.
            features_only: leave out the parts that features of videos don't need.

        Raises:
            ValueError: the directory lacks weights of the model.
        """
        config = self.model_class.for_features(self.config) if features_only else self.config
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # what the base model has no use for is left unread on purpose
        try:
            model, found = self.model_class.from_pretrained(
                self.path, config=config, dtype=dtype, output_loading_info=True
            )
        finally:
            logging.set_verbosity(verbosity)
        if found["missing_keys"]:
            raise ValueError(f"{self.path}: lacks the weights {', '.join(sorted(found['missing_keys']))}.")
        return model.eval()


def _base_class(path: str | os.PathLike, usual: type[VideoPreTrainedModel]) -> type[VideoPreTrainedModel]:
    """The class for features: the directory's own, if that encodes frames one by one and the usual one doesn't."""
    names = PreTrainedConfig.get_config_dict(path)[0].get("architectures") or ()
    own = getattr(import_module("vidformers"), names[0], None) if names else None
    separately = getattr(own, "encodes_frames_separately", False) and not usual.encodes_frames_separately
    return own if separately else usual
