"""Image processor of VideoMAE: its video processor under the names and in the file that older code looks for."""

import os
from typing import Any

from transformers.image_processing_base import ImageProcessingMixin

from .video_processing_videomae import VideoMAEVideoProcessor


class VideoMAEImageProcessor(VideoMAEVideoProcessor):
    """Prepares videos that are lists of frames, with the same pixels as [`VideoMAEVideoProcessor`].

    It takes what that takes. Its settings are in `preprocessor_config.json`, where it reads those of
    `VideoMAEFeatureExtractor` too, which is another name for it.
    """

    def __call__(self, images=None, videos=None, **kwargs):
        """`images` and `videos` are the same argument, which has had both names."""
        given = [argument for argument in (images, videos) if argument is not None]
        if len(given) != 1:
            raise TypeError(f"{type(self).__name__} takes one argument of frames, images or videos; got {len(given)}.")
        return super().__call__(given[0], **kwargs)

    save_pretrained = ImageProcessingMixin.save_pretrained

    @classmethod
    def get_video_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings, from the file of image processors.

        Args:
            pretrained_model_name_or_path: a directory or the name of a repository with `preprocessor_config.json`, or
                the path of such a file.
            **kwargs: of `from_pretrained`: where and how to look for the file, such as `revision` and `subfolder`.

        Returns:
            The settings by name, and the arguments in `kwargs` that don't say how to look for the file.
        """
        return cls.get_image_processor_dict(pretrained_model_name_or_path, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """The settings, with the name of the class."""
        settings = super().to_dict()
        del settings["video_processor_type"]
        return {**settings, "image_processor_type": type(self).__name__}


VideoMAEFeatureExtractor = VideoMAEImageProcessor

__all__ = ["VideoMAEFeatureExtractor", "VideoMAEImageProcessor"]
