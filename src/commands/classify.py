"""Zero-shot classification of a video against labels in words: what the command `vidformers classify` does."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from vidformers.inference.clips import frames_of_a_clip, read_clip
from vidformers.inference.directory import Directory


# A tiny model that ships with the package; utils/demo/train_demo.py trained it on drawn clips of moving shapes.
TOY_MODEL = Path(__file__).parents[1] / "demo_models/shapes_clip"


def read_label_list(text: str) -> list[str]:
    """The labels in a text with commas between them.

    Raises:
        ValueError: fewer than two labels, or one of them twice.
    """
    labels = [label.strip() for label in text.split(",") if label.strip()]
    if len(labels) < 2:
        raise ValueError(f'Expected two or more labels with commas between them ("a dog, a cat"), got {text!r}.')
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"These labels were given more than once: {', '.join(twice)}.")
    return labels


class Classifier:
    """A directory's video-text model and processor, ready to compare videos with labels.

    Args:
        directory: what `from_pretrained` takes: a directory or the name of a Hub repository; by default the toy model
            for moving shapes that ships with the package.
        num_frames: frames to take of a video, spread evenly; by default the model's number.

    Raises:
        ValueError: the directory's model has no text tower, or lacks weights.
    """

    def __init__(self, directory: str | os.PathLike | None = None, num_frames: int | None = None):
        opened = Directory.open(TOY_MODEL if directory is None else directory)
        if not opened.model_class.has_text_tower:
            raise ValueError(
                f"{opened.path}: {opened.model_class.__name__} has no text tower to compare labels with. Give the "
                "directory of a video-text model, such as VideoPrismClipModel, PeVideoModel or PeCoreModel."
            )
        self.model = opened.load_model(torch.float32)
        self.processor = opened.processor_class.from_pretrained(opened.path)
        self.num_frames = num_frames or frames_of_a_clip(self.model, self.processor.video_processor)

    @torch.inference_mode()
    def classify(self, video: str | os.PathLike, labels: Sequence[str]) -> dict[str, float]:
        """Score labels for a video.

        Args:
            video: path of a file, or whatever else [`~vidformers.decode_video`] takes.
            labels: texts of any kind.

        Returns:
            A share for each label, the highest first; together they make 1. They tell which of these labels fits best,
            not whether any fits.

        Raises:
            VideoDecodeError: the video cannot be read.
        """
        frames, _ = read_clip(video, self.processor.video_processor, self.num_frames)
        inputs = self.processor(videos=frames, text=list(labels), do_sample_frames=False, return_tensors="pt")
        pixels = inputs[self.processor.video_processor.model_input_names[0]]
        texts = self.model.embed_texts(inputs["input_ids"], inputs.get("attention_mask"))
        logits = self.model.compare(self.model.embed_videos(pixels), texts)  # (1, labels)
        shares = logits[0].float().softmax(0)
        order = shares.argsort(descending=True).tolist()
        return {labels[index]: shares[index].item() for index in order}
