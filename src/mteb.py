"""A directory of ours as an encoder of mteb, with the numbers of `vidformers embed`.

Needs `pip install 'vidformers[mteb]'`. Data sets of mteb hold videos as decoders of torchcodec, which needs FFmpeg.
"""

import os
from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from torch.utils.data import DataLoader

from vidformers.sentence_transformers import load


class VideoEncoder(AbsEncoder):
    """What `mteb.evaluate` takes: only the frames that the model needs are decoded of each video.

    Args:
        directory: what `from_pretrained` takes.
        num_frames: frames to take of a video; by default as many as the checkpoint is meant for.
        **kwargs: arguments of `SentenceTransformer`, such as `device`.
    """

    def __init__(self, directory: str | os.PathLike, num_frames: int | None = None, **kwargs: Any):
        self.model = load(directory, num_frames, **kwargs)
        name = os.path.basename(os.path.normpath(directory))
        about = {"name": f"vidformers/{name}", "revision": "local", "modalities": self.model.modalities}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={**about, "similarity_fn_name": "cosine"})

    def encode(self, inputs: DataLoader, *, batch_size: int = 8, **kwargs: Any) -> np.ndarray:
        """Embed the videos or the texts of a data set.

        Args:
            inputs: gives batches of columns; `video` or `text` is read.
            batch_size: inputs that run through the model at once.
            **kwargs: what mteb says of the task, which embeddings don't depend on.

        Returns:
            (rows, D) float32.

        Raises:
            ValueError: the data set has none of what the model embeds, or both.
        """
        columns = [kind for kind in self.model.modalities if kind in inputs.dataset.features]
        if len(columns) != 1:
            raise ValueError(
                f"Expected a data set with one of the columns {', '.join(self.model.modalities)}, got "
                f"{', '.join(inputs.dataset.features)}."
            )
        kind = columns[0]
        loader = DataLoader(inputs.dataset, batch_size, collate_fn=lambda rows: [{kind: row[kind]} for row in rows])
        return np.concatenate([self.model.encode(rows, show_progress_bar=False) for rows in loader])
