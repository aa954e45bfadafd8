"""Processor of PE Video: video processor and tokenizer in one."""

from transformers import PreTrainedTokenizerBase

from ..processing import TextProcessor
from .video_processing_pe_video import PeVideoVideoProcessor


class PeVideoProcessor(TextProcessor):
    """Prepares videos and texts for [`PeVideoModel`], either or both.

    `processor(text=["a dog runs"], videos="dog.mp4", return_tensors="pt")` gives `input_ids` and `attention_mask` of
    shape (texts, tokens), and `pixel_values_videos` (videos, frames, channels, height, width). Arguments of the
    tokenizer and of the video processor may be given in a call; texts are padded to the longest and cut to 512 tokens
    unless it says otherwise.

    Args:
        video_processor: a [`PeVideoVideoProcessor`].
        tokenizer: the tokenizer of ModernBERT, as `AutoTokenizer` loads it.
    """

    text_kwargs = {"padding": "longest", "truncation": True, "max_length": 512}

    def __init__(
        self,
        video_processor: PeVideoVideoProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ):
        super().__init__(video_processor, tokenizer)


__all__ = ["PeVideoProcessor"]
