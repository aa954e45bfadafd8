"""Configurations: they survive the disk, take what they advertise, and mean what transformers' mean."""

import dataclasses
import inspect
import types
import typing
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from .family_spec import FamilySpec, ModelSpec
from .family_test import FamilyTest, models, models_of_transformers, over


SAMPLES = {bool: True, int: 1, float: 0.25, str: "relu", type(None): None}


def own_fields(config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """The fields that a configuration class declares itself, with their types."""
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    return {
        name: annotation
        for base in reversed(config_class.__mro__)
        if base is not PreTrainedConfig and issubclass(base, PreTrainedConfig)
        for name, annotation in inspect.get_annotations(base).items()
        if name not in inherited and typing.get_origin(annotation) is not typing.ClassVar
    }


def members(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation admits."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if union else (annotation,)


def sample(member: Any, default: Any) -> Any:
    """A value of a type: the default itself, or the number nearest to it, where it fits."""
    origin = typing.get_origin(member) or member
    if origin in (list, tuple) and isinstance(default, (list, tuple)):
        return origin(default)
    if origin in (list, tuple):
        return origin(sample(entry, None) for entry in typing.get_args(member)[:1])
    if origin in (int, float) and isinstance(default, (int, float)) and not isinstance(default, bool):
        return origin(default)
    return default if isinstance(default, origin) else SAMPLES.get(origin, default)


def sample_of(spec: FamilySpec, name: str, member: Any, default: Any) -> Any:
    """A value of a type for a field: the spec's own, if it has any, or the simplest."""
    for value in spec.samples.get(name, ()):
        if isinstance(value, typing.get_origin(member) or member):
            return value
    return sample(member, default)


def _plain(value: Any) -> Any:
    """A value as JSON gives it back, which knows no tuples."""
    return list(value) if isinstance(value, tuple) else value


class ConfigMixin(FamilyTest):
    """Tests of a family's configuration class."""

    @over(models)
    def test_round_trip(self, model: ModelSpec):
        folder = self.temporary_folder()
        config = self.spec.config(model)
        config.save_pretrained(folder)

        for loaded in (type(config).from_pretrained(folder), AutoConfig.from_pretrained(folder)):
            assert type(loaded) is type(config)
            for name in own_fields(type(config)):
                assert _plain(getattr(loaded, name)) == _plain(getattr(config, name)), name
            expected, found = config.to_dict(), loaded.to_dict()
            names = expected.keys() | found.keys()
            different = {name for name in names if _plain(expected.get(name)) != _plain(found.get(name))}
            assert not different - {"_name_or_path"}, different

    @over(models)
    def test_advertised_types_construct(self, model: ModelSpec):
        tiny = self.spec.config(model)
        for name, annotation in own_fields(type(tiny)).items():
            if isinstance(getattr(tiny, name), PreTrainedConfig):
                continue  # whatever is given becomes a configuration
            for member in members(annotation):
                value = sample_of(self.spec, name, member, getattr(tiny, name))
                config = self.spec.config(model, **{name: value})
                assert getattr(config, name) == value, name
                if member is not bool:
                    with torch.device("meta"):
                        model.model_class(config)

    def test_other_types_are_refused(self):
        for config_class in self.spec.config_classes():
            for name, annotation in own_fields(config_class).items():
                if dict in [typing.get_origin(member) or member for member in members(annotation)]:
                    continue
                with pytest.raises(StrictDataclassError, match=name):
                    config_class(**{name: {"not": "a value"}})

    def test_every_field_is_documented(self):
        for config_class in self.spec.config_classes():
            documentation = inspect.getdoc(config_class)
            missing = [name for name in own_fields(config_class) if f"\n    {name} (" not in documentation]
            assert not missing, f"{config_class.__name__} documents no {missing}"

    @over(models_of_transformers)
    def test_defaults_are_those_of_transformers(self, model: ModelSpec):
        ours, theirs = type(self.spec.config(model))(), model.stock.classes()[0]()
        shared = [name for name in own_fields(type(ours)) if hasattr(theirs, name)]
        assert shared
        different = {
            name: (getattr(ours, name), getattr(theirs, name))
            for name in shared
            if getattr(ours, name) != getattr(theirs, name)
        }
        assert set(different) == set(model.stock.other_defaults), f"defaults (ours, theirs) differ: {different}"
        lacking = [name for name in own_fields(type(theirs)) if not hasattr(ours, name)]
        assert not lacking, f"fields of transformers that ours lacks: {lacking}"

    @over(models_of_transformers)
    def test_transformers_reads_it(self, model: ModelSpec):
        folder = self.temporary_folder()
        config = self.spec.config(model, **model.stock.config)
        config.save_pretrained(folder)
        theirs = model.stock.classes()[0].from_pretrained(folder)
        for name in own_fields(type(theirs)):
            assert _plain(getattr(theirs, name)) == _plain(getattr(config, name)), name
