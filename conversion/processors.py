"""What prepares the input of a converted model: its video and image processors and its tokenizer."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from .identify import public_class
from .load import Plan
from .ops import ConversionError


def processors_of(plan: Plan, tokenizer_file: Path | None) -> list[Any]:
    """The processors of a planned model; one that joins them if there is a tokenizer and the model has its class."""
    record, processors = plan.record, []
    settings = plan.form.processor_settings(plan.model.config) if record.input != "text" else {}
    if record.image_processor_class:
        processors.append(public_class(record.image_processor_class)(**settings))
    if record.input == "videos":
        preset = plan.request.published.video_processor if plan.request.published else {}
        video_processor_class = public_class(plan.family.video_processor_class)
        processors.append(video_processor_class(**settings | plan.processor_settings | preset))
    if tokenizer_file is not None:
        processors.append(_tokenizer(plan, tokenizer_file))
        if len(processors) > 1:
            return [public_class(record.processor_class)(*processors)]
    return processors


def tokenizer_beside(plan: Plan) -> Path | None:
    """The tokenizer's file beside the weights, where the original, like the model, leaves its class to the file."""
    record, file = plan.record, plan.found.path.with_name("tokenizer.json")
    return file if record.processor_class and record.tokenizer_class is None and file.is_file() else None


def _tokenizer(plan: Plan, file: Path) -> Any:
    """The tokenizer of a vocabulary's file, if the model can take its ids."""
    config, tokenizer_class = plan.model.config.get_text_config(), plan.record.tokenizer_class
    vocab_size = getattr(config, "vocab_size", None)
    if vocab_size is None or (tokenizer_class is None and plan.record.processor_class is None):
        raise ConversionError(f"{file}: {plan.form.architecture} takes no text; leave the tokenizer out.")
    if not file.is_file():
        raise ConversionError(
            f"{file}: no such file; expected a sentencepiece model, a list of merges or a tokenizer.json."
        )
    kind = "tokenizer_file" if file.suffix == ".json" else "vocab_file"
    options = {kind: str(file), "model_max_length": config.max_position_embeddings}
    try:
        if tokenizer_class is None:
            tokenizer = AutoTokenizer.from_pretrained(file.parent)
        else:
            tokenizer = public_class(tokenizer_class)(**options)
    except (ImportError, OSError, ValueError) as error:
        raise ConversionError(f"{file}: {error}") from error
    if len(tokenizer) > vocab_size:
        raise ConversionError(
            f"{file}: has {len(tokenizer)} pieces, but the model's table has {vocab_size}: it was trained with "
            "another vocabulary."
        )
    return tokenizer
