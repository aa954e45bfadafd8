"""Processor of VideoPrism's video-text models: tokenizer and video processor in one."""

from ..processing import TextProcessor
from .tokenization_videoprism import VideoPrismTokenizer
from .video_processing_videoprism import VideoPrismVideoProcessor


class VideoPrismProcessor(TextProcessor):
    """Prepares texts and videos for [`VideoPrismClipModel`], either or both.

    `processor(text=["a dog runs"], videos="dog.mp4", return_tensors="pt")` gives `input_ids` and `attention_mask` of
    shape (texts, 64), and `pixel_values_videos` (videos, frames, channels, height, width). Arguments of the tokenizer
    and of the video processor may be given in a call; texts are padded and cut to the tokenizer's `model_max_length`
    unless it says otherwise.

    Args:
        video_processor: a [`VideoPrismVideoProcessor`].
        tokenizer: a [`VideoPrismTokenizer`].
    """

    text_kwargs = {"padding": "max_length", "truncation": True}

    def __init__(
        self,
        video_processor: VideoPrismVideoProcessor | None = None,
        tokenizer: VideoPrismTokenizer | None = None,
    ):
        super().__init__(video_processor, tokenizer)


__all__ = ["VideoPrismProcessor"]
