"""What the processors of all families with text share."""

from typing import Any

from transformers.processing_utils import ProcessingKwargs, ProcessorMixin


class TextProcessor(ProcessorMixin):
    """Joins a tokenizer and processors of what can be seen, with `text_kwargs` as the tokenizer's defaults."""

    text_kwargs: dict[str, Any] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)

        class Defaults(ProcessingKwargs, total=False):
            _defaults = {"text_kwargs": cls.text_kwargs}

        # transformers 5.19 reads the defaults here, 5.23 from `text_kwargs`.
        cls.valid_processor_kwargs = Defaults
