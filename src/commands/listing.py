"""The published checkpoints in words: what the command `vidformers list` shows. Loads no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vidformers.families import FAMILIES
from vidformers.models.records import Family, Preset


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint.

    Attributes:
        preset: its name.
        form: what its files are, as error messages call them, too.
        size: depth and width of its model, such as "24 × 1024".
        input: frames and pixels that it is meant for, such as "16 × 224²".
        files: addresses of its original files; none where they are not public.
    """

    preset: str
    form: str
    size: str
    input: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """A family's checkpoints.

    Attributes:
        family: its name, as `--family` takes it.
        title: its name in prose.
        checkpoints: its checkpoints.
    """

    family: str
    title: str
    checkpoints: tuple[Checkpoint, ...]


def list_checkpoints(family: str | None = None) -> Iterator[Listing]:
    """The checkpoints of all families, or of one.

    Raises:
        ValueError: there is no such family.
    """
    if family not in (None, *FAMILIES):
        raise ValueError(f"There is no family {family!r}. The families are {', '.join(FAMILIES)}.")
    for record in FAMILIES.values() if family is None else [FAMILIES[family]]:
        checkpoints = (
            Checkpoint(name, record.original_files[preset.architecture], *describe(record, preset), _files(preset))
            for name, preset in record.presets.items()
        )
        yield Listing(record.model_type, record.title, tuple(checkpoints))


def describe(family: Family, preset: Preset) -> tuple[str, str]:
    """Size of a preset's model, blocks × width of each stage, and of its input, frames × side²."""
    config = preset.config
    video = config.get("video_config", {})
    tower = _fields(family, video.get("vision_config") or config.get("vision_config") or config)
    if "num_spatial_layers" in tower:
        size = f"{tower['num_spatial_layers']} + {tower['num_temporal_layers']} × {tower['hidden_size']}"
    else:
        stages = (tower, video) if video else (tower,)
        size = " + ".join(f"{stage['num_hidden_layers']} × {stage['hidden_size']}" for stage in stages)
    side = f"{tower['crop_size'] if 'crop_size' in tower else tower['image_size']}²"
    frames = tower.get("frames_per_clip") or tower.get("num_frames") or preset.video_processor.get("num_frames")
    if video:
        frames = frames or "all"
    return size, f"{frames} × {side}" if frames else side


def _fields(family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's fields, those that the name of its architecture stands for included."""
    return {**family.architectures.get(config.get("architecture"), {}), **config}


def _files(preset: Preset) -> tuple[str, ...]:
    return tuple(url for url in (preset.source, preset.probe) if url)
