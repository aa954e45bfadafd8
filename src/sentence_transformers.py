"""Models of sentence-transformers that embed videos, and texts where a directory's model does.

The numbers are those of `vidformers embed`: the same frames, the same embedding. Needs `pip install
'vidformers[sentence-transformers]'`.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_batch_modality
from sentence_transformers.base.modules import InputModule
from torch.nn.functional import normalize
from transformers import AutoVideoProcessor
from transformers.video_utils import VideoMetadata

from vidformers.inference.clips import clip_indices_of, frames_of_a_clip
from vidformers.inference.directory import Directory
from vidformers.video.decode import decode_video
from vidformers.video.inputs import is_decoder, is_file
from vidformers.video.torchcodec import read_torchcodec


class VideoEncoder(InputModule):
    """The module that reads videos and texts and embeds them: what a model of sentence-transformers starts with.

    A video is a file, a URL, bytes, an array or tensor of frames, a decoder of torchcodec, or a list of images; texts
    are strings. `{"video": …}` and `{"text": …}` say which one an input is. All inputs of a batch are of one kind.

    Args:
        directory: what `from_pretrained` takes: a converted directory or the name of a Hub repository.
        num_frames: frames to take of a video, spread as the video processor does; by default as many as the checkpoint
            is meant for, as in `vidformers embed`.
        dtype: name of the type in which the model computes.

    Raises:
        ValueError: the directory's model doesn't embed videos, or lacks weights.
    """

    config_file_name = "sentence_video_config.json"
    config_keys = ["num_frames", "dtype"]

    def __init__(self, directory: str | os.PathLike, num_frames: int | None = None, dtype: str = "float32"):
        super().__init__()
        opened = Directory.open_for_videos(directory)
        self.model = opened.load_model(getattr(torch, dtype), features_only=True)
        self.video_processor = AutoVideoProcessor.from_pretrained(directory)
        processor_class = opened.processor_class if self.model.has_text_tower else AutoVideoProcessor
        self.processor = processor_class.from_pretrained(directory)
        self.num_frames = num_frames or frames_of_a_clip(self.model, self.video_processor)
        self.dtype = dtype

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> "VideoEncoder":
        """Read the module from a directory that `vidformers export sentence-transformers` or `save` prepared."""
        places = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        settings = cls.load_config(model_name_or_path, **{name: kwargs[name] for name in places if name in kwargs})
        return cls(model_name_or_path, **settings)

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write model, processors and settings into a directory."""
        self.model.save_pretrained(output_path)
        self.processor.save_pretrained(output_path)
        self.save_config(output_path)

    @property
    def modalities(self) -> list[str]:
        """What the model embeds."""
        return ["video", "text"] if self.model.has_text_tower else ["video"]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of texts, if there is one."""
        return getattr(self.processor, "tokenizer", None)

    def get_embedding_dimension(self) -> int | None:
        """Width of the embeddings: unknown before there is one."""
        return None

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Read a batch of inputs.

        Args:
            inputs: videos or texts.
            prompt: what texts begin with.
            **kwargs: arguments of the encoder that this module doesn't need.

        Returns:
            What `forward` takes: `videos`, tensors (T, C, H, W), or `input_ids` and `attention_mask`, (B, L).
        """
        kind = infer_batch_modality(inputs, supported_modalities=self.modalities)
        if kind not in self.modalities:
            raise ValueError(f"Expected a batch of {' or of '.join(self.modalities)}, got {kind}.")
        values = [item[kind] if isinstance(item, dict) and kind in item else item for item in inputs]
        if kind == "video":
            return {"videos": [self._read(video) for video in values]}
        texts = [(prompt or "") + text for text in values]
        return dict(self.processor(text=texts, return_tensors="pt"))

    def _read(self, video: Any) -> torch.Tensor:
        """The pixels (T, C, H, W) of the frames that are wanted of a video."""
        sample, about = partial(clip_indices_of, self.video_processor, self.num_frames), {}
        if isinstance(video, dict):  # frames with their metadata, as sentence-transformers takes them
            video, about = video["array"], video.get("video_metadata") or {}
        if is_decoder(video):
            frames, _ = read_torchcodec(video, sample)
        elif is_file(video):
            frames, _ = decode_video(video, sample)
        else:
            indices = sample(VideoMetadata(**{"total_num_frames": len(video), **about})).tolist()
            frames = [video[index] for index in indices] if isinstance(video, (list, tuple)) else video[indices]
        pixels = self.video_processor([frames], do_sample_frames=False, return_tensors="pt")
        return pixels[self.video_processor.model_input_names[0]][0]

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, (B, D) float32: of length one where videos and texts are compared."""
        if "videos" in features:
            embeddings = self._embed_videos(features["videos"])
        else:
            embeddings = self.model.embed_texts(features["input_ids"], features.get("attention_mask"))
        if self.model.has_text_tower:
            embeddings = normalize(embeddings.float(), dim=-1)
        return {**features, "sentence_embedding": embeddings}

    def _embed_videos(self, videos: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, D); videos of one shape together."""
        shapes = [video.shape for video in videos]
        found: dict[int, torch.Tensor] = {}
        for shape in dict.fromkeys(shapes):
            places = [place for place, other in enumerate(shapes) if other == shape]
            batch = torch.stack([videos[place] for place in places]).to(self.model.device, self.model.dtype)
            found |= dict(zip(places, self.model.embed_videos(batch), strict=True))
        return torch.stack([found[place] for place in range(len(videos))])


def load(directory: str | os.PathLike, num_frames: int | None = None, **kwargs: Any) -> SentenceTransformer:
    """A model of sentence-transformers from a directory that nothing was exported to.

    Args:
        directory: what `from_pretrained` takes.
        num_frames: as for [`~vidformers.sentence_transformers.VideoEncoder`].
        **kwargs: arguments of `SentenceTransformer`, such as `device`.
    """
    model = SentenceTransformer(modules=[VideoEncoder(directory, num_frames)], **kwargs)
    model.model_card_data.set_base_model(str(directory))
    return model
