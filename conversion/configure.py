"""The configuration of a model from original files: what shapes, settings, presets and users say, and who wins."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig

from vidformers.models.records import Family, Preset

from .found import Found
from .identify import public_class, shortened, similar
from .ops import ConversionError
from .rules import Bounded, Form


def configuration(
    family: Family, form: Form, found: Found, preset: Preset | None, overrides: Mapping[str, Any]
) -> tuple[PretrainedConfig, dict[str, Any]]:
    """The configuration, and what the original's settings say of the video processor.

    Later ones win: what tensors imply, the original's settings, the preset, the user's overrides. None of them may
    contradict what shapes fix.
    """
    config_class = public_class(form.architecture).config_class
    _check_field_names(config_class(), overrides)
    fixed, implied = _read_shapes(form, found)
    settings, processor = _read_settings(form, found)
    given = merge(merge(settings, preset.config if preset else {}), overrides)
    if "id2label" in given:
        given["num_labels"] = len(given["id2label"])
    _check_contradictions(found, fixed, given)
    values = merge(merge(implied, _plain(fixed)), given)
    lacking = [path for path in form.required if _get(values, path) is None]
    if lacking:
        raise ConversionError(
            f"{found.path}: its tensors don't tell {', '.join(lacking)}. Give them, or the preset of a published "
            f"checkpoint: {', '.join(family.presets)}."
        )
    if "id2label" in values:
        del values["num_labels"]
        values["label2id"] = {label: int(index) for index, label in values["id2label"].items()}
    try:
        return config_class(**values, architectures=[form.architecture]), processor
    except (StrictDataclassError, ValueError) as error:
        raise ConversionError(f"{config_class.__name__} refuses the configuration: {error}") from error


def _read_shapes(form: Form, found: Found) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the shapes fix and what they imply."""
    shapes = found.shapes
    try:
        return form.config_from(shapes), form.implied_from(shapes)
    except ConversionError as error:
        raise ConversionError(f"{found.path}: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        name = shapes.asked
        state = f"has shape {list(shapes[name])}" if name in shapes else "is missing"
        raise ConversionError(
            f"{found.path}: {found.written(name)} {state}, and sizes of the model are read from it."
        ) from error


def _read_settings(form: Form, found: Found) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the original's settings beside the checkpoint tell; nothing where there are none."""
    file = form.settings_file and found.path.with_name(form.settings_file)
    if file is None or not file.is_file():
        return {}, {}
    try:
        return form.read_settings(json.loads(file.read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{file}: not what the original reads ({type(error).__name__}: {error}).") from error


def _check_contradictions(found: Found, fixed: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    problems = []
    for path, value in _leaves(fixed):
        other = _get(given, path)
        if other is not None and not _agrees(other, value):
            value = value.value if isinstance(value, Bounded) else value
            problems.append(f"{path}={other!r} was given, but the file's tensors say {value!r}")
    if problems:
        raise ConversionError(f"{found.path}: " + "; ".join(shortened(problems, "fields")) + ".")


def _agrees(given: Any, value: Any) -> bool:
    """Whether what is given is what shapes say, or within what they bound."""
    if isinstance(value, Bounded):
        return value.fits(given)
    if isinstance(given, float) or isinstance(value, float):
        return math.isclose(given, value)
    if isinstance(given, (list, tuple)) and isinstance(value, (list, tuple)):
        return list(given) == list(value)
    return given == value


def _check_field_names(defaults: PretrainedConfig, overrides: Mapping[str, Any], path: str = "") -> None:
    """Raise unless the configuration has every field that is given, sub-configurations by dotted paths."""
    fields = {name: value for name, value in vars(defaults).items() if not name.startswith("_")}
    parts = {name: value for name, value in fields.items() if isinstance(value, PretrainedConfig)}
    for name, value in overrides.items():
        if name in parts and not isinstance(value, Mapping):
            raise ConversionError(f"{path}{name} is a configuration; give its fields, as in {path}{name}.FIELD=VALUE.")
        if name in parts:
            _check_field_names(parts[name], value, f"{path}{name}.")
        elif name not in fields and name != "num_labels":
            dotted = [f"{path}{part}.{name}" for part in parts if name in vars(parts[part])]
            close = f"; did you mean {' or '.join(dotted)}?" if dotted else similar(name, fields)
            raise ConversionError(f"{type(defaults).__name__} has no field {name!r}{close}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, dictionary by dictionary."""
    merged = dict(base)
    for name, value in over.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = merge(merged[name], value) if nested else value
    return merged


def _plain(value: Any) -> Any:
    """A value, or nested ones, without bounds."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value.value if isinstance(value, Bounded) else value


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested dictionaries by dotted path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _get(values: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, `None` if there is none."""
    first, _, rest = path.partition(".")
    value = values.get(first)
    return _get(value, rest) if rest and isinstance(value, Mapping) else None if rest else value
