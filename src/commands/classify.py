"""Scores of labels for videos: what the command `vidformers classify` does."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForVideoClassification
from transformers.models.auto.video_processing_auto import AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from vidformers.files import written_whole
from vidformers.inference.clips import frames_of_a_clip, read_clip
from vidformers.inference.device import find_device
from vidformers.inference.directory import Directory
from vidformers.inference.windows import Window, Windows
from vidformers.progress import Progress, no_progress
from vidformers.video import VideoDecodeError, VideoReader


# A tiny model that ships with the package; utils/demo/train_demo.py trained it on drawn clips of moving shapes.
TOY_MODEL = Path(__file__).parents[1] / "demo_models/shapes_clip"


def gather_labels(
    labels: Sequence[str] = (), text: str = "", file: str | os.PathLike | None = None
) -> list[str] | None:
    """Labels in words from all that a user gave; `None` where that is nothing.

    Args:
        labels: one label each.
        text: labels with commas between them.
        file: of labels, as for [`~vidformers.conversion.labels.read_labels`].

    Raises:
        ValueError: fewer than two labels, or one of them twice.
    """
    from vidformers.conversion.labels import read_labels

    every = [*labels, *text.split(","), *(read_labels(file) if file is not None else ())]
    every = [label.strip() for label in every if label.strip()]
    if not (every or labels or text or file):
        return None
    if len(every) < 2:
        raise ValueError(f'Expected two or more labels, such as "a dog" and "a cat", got {every}.')
    twice = sorted({label for label in every if every.count(label) > 1})
    if twice:
        raise ValueError(f"These labels were given more than once: {', '.join(twice)}.")
    return every


@dataclass(frozen=True)
class Scores:
    """What is said of a video.

    Attributes:
        name: the video's.
        shares: as [`~vidformers.commands.classify.Classifier.classify`] gives them; empty where it failed.
        num_frames: how many frames the video has.
        failure: why the video cannot be read, or `None`.
        window: the part of the video that the shares are of; `None` for the whole.
    """

    name: str
    shares: Mapping[str, float]
    num_frames: int | None = None
    failure: str | None = None
    window: Window | None = None


def classify_files(
    classifier: "Classifier",
    files: Mapping[str, str | os.PathLike],
    labels: Sequence[str] | None,
    windows: Windows | None = None,
    progress: Progress = no_progress,
) -> Iterator[Scores]:
    """Score labels for many videos. One that cannot be read costs its own scores only.

    Args:
        classifier: a model.
        files: videos by name.
        labels: as for the classifier's `classify`.
        windows: how to cut each video; `None` to score it as a whole.
        progress: called with an activity and how much of it is done.
    """
    for done, (name, file) in enumerate(files.items(), start=1):
        try:
            if windows is None:
                frames, metadata = classifier.read(file)
                yield Scores(name, classifier.score(frames, labels), metadata.total_num_frames)
            else:
                for window, shares in classifier.classify_windows(file, windows, labels):
                    yield Scores(name, shares, window=window)
        except VideoDecodeError as error:
            yield Scores(name, {}, failure=str(error))
        progress("classifying videos", done, len(files))


def draw_scores(scores: Sequence[Scores], top: int, path: str | os.PathLike) -> None:
    """A picture of the scores of videos over their seconds, a panel for each video.

    Args:
        scores: of windows, those of a video together.
        top: labels to draw of each video, those with the highest mean share.
        path: the picture to write, a `.png`, `.svg` or `.pdf`.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the path's suffix is none of these.
    """
    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError("A picture of scores needs matplotlib: `pip install matplotlib`.", name="matplotlib")
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(each.name for each in scores))
    figure = Figure(figsize=(9, 2.6 * len(names) + 0.4), layout="constrained")
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        of_video = [each for each in scores if each.name == name]
        means = {label: sum(each.shares[label] for each in of_video) for label in of_video[0].shares}
        edges = [of_video[0].window.start_seconds, *(each.window.end_seconds for each in of_video)]
        middles = [each.window.middle_seconds for each in of_video]
        for label in sorted(means, key=means.get, reverse=True)[:top]:
            axes.plot(middles, [100 * each.shares[label] for each in of_video], marker="o", ms=3, label=label)
        axes.set(title=name, xlabel="seconds", ylabel="share, %", ylim=(-2, 102), xlim=(edges[0], max(edges)))
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    with written_whole(Path(path)) as (place,):
        figure.savefig(place, dpi=120)


class Classifier:
    """A directory's model, ready to score labels for videos.

    A video-text model takes labels in words. A classifier has labels of its own, those that it was trained on.

    Args:
        directory: what `from_pretrained` takes: a directory or the name of a Hub repository; by default the toy model
            for moving shapes that ships with the package.
        num_frames: frames to take of a video, spread evenly; by default the model's number.
        device: where the model runs, as for [`~vidformers.inference.device.find_device`].
        dtype: type in which it computes.

    Attributes:
        labels: the labels of a classifier in the order of its logits; `None` for a video-text model.

    Raises:
        OSError: there is no such model.
        ValueError: the directory's model can do neither, or lacks weights; or there is no such device.
    """

    def __init__(
        self,
        directory: str | os.PathLike | None = None,
        num_frames: int | None = None,
        *,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        place = find_device(device)
        opened = Directory.open(TOY_MODEL if directory is None else directory)
        self.labels = opened.labels
        if self.labels is None and not opened.model_class.has_text_tower:
            raise ValueError(
                f"{opened.path}: {opened.model_class.__name__} neither has a text tower, to compare labels with, nor "
                "is it a classifier. Give the directory of a video-text model, such as VideoPrismClipModel, "
                "PeVideoModel or PeCoreModel, or of a fine-tuned classifier."
            )
        if self.labels is None:
            self.model = opened.load_model(dtype)
            self.processor = opened.processor_class.from_pretrained(opened.path)
            self.video_processor = self.processor.video_processor
        else:
            self.model = AutoModelForVideoClassification.from_pretrained(opened.path, dtype=dtype).eval()
            self.video_processor = AutoVideoProcessor.from_pretrained(opened.path)
        self.model.to(place)
        self.num_frames = num_frames or frames_of_a_clip(self.model, self.video_processor)
        self._texts: tuple[tuple[str, ...], torch.Tensor] | None = None

    def classify(self, video: str | os.PathLike, labels: Sequence[str] | None = None) -> dict[str, float]:
        """Score labels for a video.

        Args:
            video: path of a file, or whatever else [`~vidformers.decode_video`] takes.
            labels: texts of any kind, for a video-text model; `None` for a classifier.

        Returns:
            A share for each label, the highest first; together they make 1. They tell which of these labels fits best,
            not whether any fits. Of a classifier for several labels at once each share stands alone.

        Raises:
            VideoDecodeError: the video cannot be read.
            ValueError: labels for a classifier, or none for a video-text model.
        """
        return self.score(self.read(video)[0], labels)

    def classify_windows(
        self, video: str | os.PathLike, windows: Windows, labels: Sequence[str] | None = None
    ) -> Iterator[tuple[Window, dict[str, float]]]:
        """Score labels for the windows of a video, one after the other.

        Args:
            video: as for `classify`.
            windows: how to cut it; without `num_frames` of its own, the model's number.
            labels: as for `classify`.

        Yields:
            Every window, and what `classify` gives for it.

        Raises:
            VideoDecodeError: the video cannot be read.
        """
        reader = VideoReader(video)
        if windows.num_frames is None:
            windows = replace(windows, num_frames=self.num_frames)
        cut = windows(reader.metadata)
        clips = reader.read_many([window.frame_indices for window in cut])
        for window, (frames, _) in zip(cut, clips, strict=True):
            yield window, self.score(frames, labels)

    def read(self, video: str | os.PathLike) -> tuple[np.ndarray, VideoMetadata]:
        """The frames of a video that the model takes, as [`~vidformers.inference.clips.read_clip`] gives them."""
        return read_clip(video, self.video_processor, self.num_frames, exactly=self.labels is not None)

    @torch.inference_mode()
    def score(self, frames: np.ndarray, labels: Sequence[str] | None = None) -> dict[str, float]:
        """Score labels for frames that are chosen already.

        Args:
            frames: uint8 (T, H, W, C).
            labels: as for `classify`.

        Returns:
            As `classify`.
        """
        if (labels is None) == (self.labels is None):
            needed = "Give labels in words." if labels is None else "It takes no others: leave them out."
            has = "compares videos with texts" if self.labels is None else "has labels of its own"
            raise ValueError(f"{type(self.model).__name__} {has}. {needed}")
        pixels = self.video_processor(frames, do_sample_frames=False, return_tensors="pt")
        pixels = pixels[self.video_processor.model_input_names[0]].to(self.model.device, self.model.dtype)
        if labels is None:
            logits, several = self.model(pixels).logits, self.model.config.problem_type == "multi_label_classification"
        else:
            logits, several = self.model.compare(self.model.embed_videos(pixels), self._embed(tuple(labels))), False
        logits = logits[0].float()  # (labels,)
        shares = logits.sigmoid() if several else logits.softmax(0)
        names = self.labels or labels
        return {names[index]: shares[index].item() for index in shares.argsort(descending=True).tolist()}

    def _embed(self, labels: tuple[str, ...]) -> torch.Tensor:
        """Embeddings of labels (labels, D), computed once for many videos."""
        if self._texts is None or self._texts[0] != labels:
            inputs = self.processor(text=list(labels), return_tensors="pt").to(self.model.device)
            embeds = self.model.embed_texts(inputs["input_ids"], inputs.get("attention_mask"))
            self._texts = labels, embeds
        return self._texts[1]
