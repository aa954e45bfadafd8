"""What the models of all families share: attention backends, original checkpoints, and what a call returns."""

import os

from transformers import PreTrainedModel
from transformers.utils import ModelOutput


class NestedOutput(ModelOutput):
    """An output with fields that are outputs themselves, and become tuples with it."""

    def to_tuple(self) -> tuple:
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in super().to_tuple())


class VideoPreTrainedModel(PreTrainedModel):
    """A model whose attention is computed by `layers.attention`, and that can be built from original checkpoints."""

    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    @classmethod
    def from_original(cls, path: str | os.PathLike, **kwargs) -> "VideoPreTrainedModel":
        """Build this model from a checkpoint of the original code.

        Args:
            path: the original file or directory.
            **kwargs: as for [`vidformers.conversion.load_original`].

        Returns:
            The model, in evaluation mode.

        Raises:
            ConversionError: the checkpoint holds no such model, or doesn't fit the configuration.
        """
        from ..conversion import load_original

        return load_original(path, model_class=cls, **kwargs)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True

    def set_attn_implementation(self, *args, **kwargs) -> None:
        """Choose how attention is computed, in all towers, as the base class takes it."""
        super().set_attn_implementation(*args, **kwargs)
        # transformers 5.19 leaves this mark on the configurations of towers within towers, and passes them by later.
        for module in self.modules():
            getattr(module, "config", self.config).__dict__.pop("_attn_was_changed", None)

    def _records(self, output_hidden_states: bool | None, output_attentions: bool | None) -> dict[str, bool]:
        """What to record: as a call says, or as the configuration says where it does not."""
        asked = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        return {name: bool(getattr(self.config, name) if on is None else on) for name, on in asked.items()}
