"""The configuration of a model from original files: what shapes, settings, presets and users say, and who wins."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from transformers import PretrainedConfig

from vidformers.families import FAMILIES
from vidformers.models.records import Preset

from .found import Found
from .identify import public_class, shortened, similar
from .ops import ConversionError
from .rules import Bounded


def fields_of(
    found: Found, preset: Preset | None, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the configuration, and what the original's settings say of the video processor.

    Later ones win: the original's settings, the preset, the user's overrides. None may contradict what shapes fix.
    """
    form, overrides = found.form, dict(overrides)
    _check_field_names(_defaults(public_class(form.architecture).config_class), overrides)
    read = _read_shapes(found)
    settings, processor = _read_settings(found)
    labels = {int(index): label for index, label in overrides.pop("id2label", {}).items()}
    given = flat(settings) | flat(preset.config if preset else {}) | flat(overrides)
    if labels:
        given["num_labels"] = len(labels)
    problems = [
        f"{path}={given[path]!r} was given, but the file's tensors say {bound.value!r}"
        for path, bound in read.items()
        if given.get(path) is not None and not bound.fits(given[path])
    ]
    if problems:
        raise ConversionError(f"{found.path}: " + "; ".join(shortened(problems, "fields")) + ".")
    fields = {path: bound.value for path, bound in read.items()} | given
    lacking = [path for path in form.required if fields.get(path) is None]
    if lacking:
        raise ConversionError(
            f"{found.path}: its tensors don't tell {', '.join(lacking)}. Give them, or the preset of a published "
            f"checkpoint: {', '.join(FAMILIES[form.family].presets)}."
        )
    if labels:
        del fields["num_labels"]
        fields |= {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    return nested(fields), processor


@cache
def _defaults(config_class: type[PretrainedConfig]) -> PretrainedConfig:
    return config_class()


def _read_shapes(found: Found) -> dict[str, Bounded]:
    """What the shapes say of fields, by dotted paths."""
    shapes = found.shapes
    try:
        return bounds(found.form.config_from(shapes))
    except ConversionError as error:
        raise ConversionError(f"{found.path}: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        name = shapes.asked
        state = f"has shape {list(shapes[name])}" if name in shapes else "is missing"
        raise ConversionError(
            f"{found.path}: {found.written(name)} {state}, and sizes of the model are read from it."
        ) from error


def bounds(fields: Mapping[str, Any]) -> dict[str, Bounded]:
    """What shapes say of fields, by dotted paths; a plain value is one that nothing but itself fits."""
    return {
        path: value if isinstance(value, Bounded) else Bounded(value, partial(_agrees, value))
        for path, value in flat(fields).items()
    }


def _agrees(value: Any, given: Any) -> bool:
    """Whether what is given is what shapes say."""
    if isinstance(given, float) or isinstance(value, float):
        return math.isclose(given, value)
    if isinstance(given, (list, tuple)) and isinstance(value, (list, tuple)):
        return list(given) == list(value)
    return given == value


def _read_settings(found: Found) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the original's settings beside the checkpoint tell; nothing where there are none."""
    file = found.form.settings_file and found.path.with_name(found.form.settings_file)
    if file is None or not file.is_file():
        return {}, {}
    try:
        return found.form.read_settings(json.loads(file.read_text("utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{file}: not what the original reads ({type(error).__name__}: {error}).") from error


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


def flat(fields: Mapping[str, Any], beginning: str = "") -> dict[str, Any]:
    """Nested fields by dotted paths."""
    paths: dict[str, Any] = {}
    for name, value in fields.items():
        path = f"{beginning}{name}"
        paths |= flat(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return paths


def nested(paths: Mapping[str, Any]) -> dict[str, Any]:
    """The dictionaries of which `paths` has the values by dotted paths."""
    fields: dict[str, Any] = {}
    for path, value in paths.items():
        *above, name = path.split(".")
        inner = fields
        for each in above:
            inner = inner.setdefault(each, {})
        inner[name] = value
    return fields


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """Nested fields from texts such as "vision_config.image_size=224"; values are JSON, or else text.

    Raises:
        ConversionError: for a text that is no assignment, and for a field that gets a value and fields of its own.
    """
    settings: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.split(".")):
            raise ConversionError(
                f"--set {assignment}: expected FIELD=VALUE, such as num_attention_heads=3, or "
                "vision_config.num_attention_heads=3 for a field of a sub-configuration."
            )
        for other in settings:
            if f"{other}.".startswith(f"{path}.") != f"{path}.".startswith(f"{other}."):
                raise ConversionError(f"--set {assignment}: {min(path, other)} was given a value of its own as well.")
        try:
            settings[path] = json.loads(text)
        except ValueError:
            settings[path] = text
    return nested(settings)
