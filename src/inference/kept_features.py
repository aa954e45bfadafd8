"""Features of clips on disk, so that a frozen model runs once for each.

A folder holds `settings.json`, what all of its features are made with, and a `.safetensors` file a clip with `tokens`
(views, N, D). Files appear whole, and what is there is not made again.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from vidformers.files import explained_write, written_whole
from vidformers.models.attentive_pooler import ProbeFeatures
from vidformers.models.pretrained import VideoPreTrainedModel
from vidformers.progress import Progress

from .media import Clip
from .probe_clips import Prepare, PreparedClips, stacked
from .store import FileState


class KeptFeatures:
    """A folder of features of clips.

    Args:
        path: of the folder, which is made where there is none.
        settings: what the features are made with, in plain values.

    Raises:
        ValueError: it holds something else, or features that are made with other settings.
    """

    def __init__(self, path: str | os.PathLike, settings: Mapping[str, Any]):
        self.path = Path(path)
        noted, settings = self.path / "settings.json", json.loads(json.dumps(settings))
        if noted.is_file():
            there = json.loads(noted.read_text("utf-8"))
            differing = [name for name in {**there, **settings} if there.get(name) != settings.get(name)]
            if differing:
                listed = "; ".join(f"{name} was {there.get(name)}, now {settings.get(name)}" for name in differing)
                raise ValueError(
                    f"{self.path} holds features that were made otherwise: {listed}. Choose another folder, or "
                    "remove this one."
                )
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(f"{self.path} exists and is no folder of features; choose another name.")
        with written_whole(self.path, folder=True) as (place,):
            (place / noted.name).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")

    def file_of(self, clip: Clip, views: int) -> Path:
        """Where the features of a clip are. A file that changes gets another place."""
        identity = [clip.name, views]
        if isinstance(clip.source, str | os.PathLike):
            identity = [os.path.abspath(clip.source), views, asdict(FileState.of(clip.source))]
        # The fields of subclasses tell clips of one video apart.
        identity += [value for name, value in vars(clip).items() if name not in ("name", "label", "source")]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        return self.path / f"{digest}.safetensors"

    def load(self, clips: Sequence[Clip], views: int) -> ProbeFeatures:
        """The features of clips: tokens (B·views, N, D)."""
        tokens = torch.stack([load_file(self.file_of(clip, views))["tokens"] for clip in clips])
        return ProbeFeatures(tokens.flatten(0, 1), num_views=views if views > 1 else None)

    def save(self, clip: Clip, tokens: torch.Tensor) -> None:
        """Write the features of a clip, (views, N, D).

        Raises:
            OSError: there is no space, or the folder cannot be written.
        """
        path = self.file_of(clip, len(tokens))
        with written_whole(path) as (place,), explained_write(path, tokens.nbytes):
            save_file({"tokens": tokens.contiguous().cpu()}, place)

    def fill(
        self,
        model: VideoPreTrainedModel,
        clips: Sequence[Clip],
        prepare: Prepare,
        *,
        batch_size: int,
        workers: int,
        progress: Progress,
        activity: str,
    ) -> dict[Clip, str]:
        """Make the features that are not there.

        Args:
            model: a model with a probe.
            clips: of which.
            prepare: makes its input of a clip.
            batch_size: clips that the model sees at once.
            workers: processes that decode; 0 to decode in this one.
            progress: called with `activity` and how much of it is done.
            activity: what it is called.

        Returns:
            The clips that cannot be used, and why.
        """
        missing = [clip for clip in clips if not self.file_of(clip, prepare.views).is_file()]
        problems, done = {}, len(clips) - len(missing)
        loader = DataLoader(
            PreparedClips(missing, prepare), batch_size=batch_size, num_workers=workers, collate_fn=stacked
        )
        for kept, inputs, unusable in loader:
            problems |= unusable
            if kept:
                tokens = encode(model, inputs).tokens.unflatten(0, (len(kept), -1))
                for clip, each in zip(kept, tokens, strict=True):
                    self.save(clip, each)
            done += len(kept) + len(unusable)
            progress(activity, done, len(clips))
        return problems


@torch.no_grad()
def encode(model: VideoPreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> ProbeFeatures:
    """What a model makes of a batch of [`~vidformers.inference.probe_clips.PreparedClips`]."""
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(model.dtype)
    return model.probe_features(**inputs)
