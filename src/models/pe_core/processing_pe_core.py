"""Processor of PE core: image processor, video processor and tokenizer in one."""

from ..processing import TextProcessor
from .image_processing_pe_core import PeCoreImageProcessor
from .tokenization_pe_core import PeCoreTokenizer
from .video_processing_pe_core import PeCoreVideoProcessor


class PeCoreProcessor(TextProcessor):
    """Prepares texts, images and videos for [`PeCoreModel`], whichever are given.

    `processor(text=["a dog runs"], images=image, return_tensors="pt")` gives `input_ids` of shape (texts, 32) and
    `pixel_values` (images, channels, height, width); `videos="dog.mp4"` gives `pixel_values_videos` (videos, frames,
    channels, height, width) and `padding_mask_videos`. Arguments of the three may be given in a call; texts are padded
    and cut to the tokenizer's `model_max_length` unless it says otherwise.

    Args:
        image_processor: a [`PeCoreImageProcessor`].
        video_processor: a [`PeCoreVideoProcessor`].
        tokenizer: a [`PeCoreTokenizer`].
    """

    text_kwargs = {"padding": "max_length", "truncation": True}

    def __init__(
        self,
        image_processor: PeCoreImageProcessor | None = None,
        video_processor: PeCoreVideoProcessor | None = None,
        tokenizer: PeCoreTokenizer | None = None,
    ):
        super().__init__(image_processor, video_processor, tokenizer)


__all__ = ["PeCoreProcessor"]
