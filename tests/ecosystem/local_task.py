"""A task of mteb whose videos are local files; its own are on the Hub."""

from pathlib import Path
from types import SimpleNamespace

import torch
from datasets import ClassLabel, Dataset, DatasetDict
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.task_metadata import TaskMetadata

import vidformers


class Decoder:
    """What mteb and we use of torchcodec's decoder, which needs FFmpeg."""

    def __init__(self, path):
        self.frames, metadata = vidformers.decode_video(path)
        height, width = self.frames.shape[1:3]
        self.metadata = SimpleNamespace(
            num_frames=len(self.frames),
            average_fps=metadata.fps,
            width=width,
            height=height,
            duration_seconds=metadata.duration,
        )

    def __len__(self):
        return len(self.frames)

    def get_frames_at(self, indices):
        return SimpleNamespace(data=torch.from_numpy(self.frames[list(indices)]).permute(0, 3, 1, 2))


def clips_task(videos: list[Path]) -> AbsTaskClassification:
    """Which of these clips is it? Three samples of each, to train with and to test with."""

    class Clips(AbsTaskClassification):
        metadata = TaskMetadata(
            name="Clips",
            description="Which of the clips is it?",
            reference=None,
            dataset={"path": "none/none", "revision": "none"},
            type="VideoClassification",
            category="v2c",
            modalities=["video"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="accuracy",
        )
        input_column_name = ("video",)
        samples_per_label, n_experiments = 2, 1

        def load_data(self, **kwargs):
            rows = {"video": [str(path) for path in videos] * 3, "label": list(range(len(videos))) * 3}
            data = Dataset.from_dict(rows).cast_column("label", ClassLabel(names=[path.name for path in videos]))
            data.set_transform(_decoded)
            self.dataset, self.data_loaded = DatasetDict(train=data, test=data), True

    return Clips()


def _decoded(batch: dict) -> dict:
    """Rows with decoders in the place of paths, as mteb's data sets have them."""
    return {**batch, "video": [Decoder(path) for path in batch["video"]]} if "video" in batch else batch
