"""Configuration of V-JEPA 2, 2.1 and 2-AC."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class VJEPA2Config(PreTrainedConfig):
    r"""Configuration of the V-JEPA 2 encoder, its predictor and its attentive probes.

    The defaults describe ViT-L at 64 frames of 256 × 256 pixels. Field names and their meaning are those of
    transformers; the fields that transformers does not have are marked with *ours* and default to the behavior of
    the original code. Those of V-JEPA 2.1 have the names of transformers' open change 45497 and default to V-JEPA 2.

    Args:
        patch_size (`int`, *optional*, defaults to 16):
            Height and width of a patch, in pixels.
        tubelet_size (`int`, *optional*, defaults to 2):
            Number of consecutive frames that one token covers.
        in_chans (`int`, *optional*, defaults to 3):
            Number of color channels.
        crop_size (`int`, *optional*, defaults to 256):
            Height and width of the training crop, in pixels. The encoder takes any size; the predictor numbers its
            positions on the grid of this crop (see `pred_positions_from_input`).
        frames_per_clip (`int`, *optional*, defaults to 64):
            Number of frames of a clip that the checkpoint is meant for, also readable as `num_frames`. The model
            takes any number.
        hidden_size (`int`, *optional*, defaults to 1024):
            Width of the encoder.
        num_hidden_layers (`int`, *optional*, defaults to 24):
            Number of encoder blocks.
        num_attention_heads (`int`, *optional*, defaults to 16):
            Number of attention heads of an encoder block.
        mlp_ratio (`float`, *optional*, defaults to 4.0):
            Hidden width of an encoder MLP divided by `hidden_size`.
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of every MLP.
        qkv_bias (`bool`, *optional*, defaults to `True`):
            Whether queries, keys and values of encoder and predictor have biases.
        layer_norm_eps (`float`, *optional*, defaults to 1e-6):
            Epsilon of the layer norms of encoder and predictor.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities in encoder and predictor.
        drop_path_rate (`float`, *optional*, defaults to 0.0):
            Stochastic depth: the rate rises linearly from 0 in the first block to this in the last one.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the truncated normal that initializes the weights.
        use_rope_interleave (`bool`, *optional*, defaults to `False`):
            *2.1.* Whether both channels of a rotated pair turn by the same angle. V-JEPA 2 lays the angles out twice
            one after the other instead.
        interpolate_rope (`bool`, *optional*, defaults to `False`):
            *2.1.* Whether the encoder spreads its rows and columns over those of a 256-pixel picture, whatever the
            input's size.
        use_modality_embeddings (`bool`, *optional*, defaults to `False`):
            *2.1.* Whether encoder and predictor add to every token a learned vector, one for images and another for
            videos.
        use_image_patch_embedder (`bool`, *optional*, defaults to `False`):
            *2.1.* Whether images, that is inputs of one frame, have a patch embedding of their own, of one frame. By
            default their frame is repeated to fill a tubelet.
        hierarchical_layers (`list[int]`, *optional*):
            *2.1.* Indices, from 0, of the encoder blocks whose outputs, each with a norm of its own, form
            `hierarchical_hidden_state`. The last of these norms then stands for the final norm.
        num_distillation_outputs (`int`, *optional*, defaults to 1):
            *2.1.* Number of levels, the last ones of `hierarchical_layers`, that the predictor reads and predicts. It
            embeds more than one by an MLP.
        teacher_embed_dim (`int`, *optional*):
            *2.1.* Width of one level of the features that the predictor predicts, where they are those of another
            encoder; `hidden_size` by default.
        use_context_projection (`bool`, *optional*, defaults to `False`):
            *2.1.* Whether the predictor also predicts the features of its context tokens, by a projection for them.
        pred_interpolate_rope (`bool`, *optional*, defaults to `False`):
            *Ours, for 2.1.* `interpolate_rope` for the predictor. The original's training had it on; its hub loader
            leaves it off.
        use_predictor (`bool`, *optional*, defaults to `True`):
            *Ours.* Whether [`VJEPA2Model`] holds a predictor. Classifiers never do.
        pred_hidden_size (`int`, *optional*, defaults to 384):
            Width of the predictor.
        pred_num_hidden_layers (`int`, *optional*, defaults to 12):
            Number of predictor blocks.
        pred_num_attention_heads (`int`, *optional*, defaults to 12):
            Number of attention heads of a predictor block.
        pred_mlp_ratio (`float`, *optional*, defaults to 4.0):
            Hidden width of a predictor MLP divided by `pred_hidden_size`.
        pred_num_mask_tokens (`int`, *optional*, defaults to 10):
            Number of learned mask tokens.
        pred_zero_init_mask_tokens (`bool`, *optional*, defaults to `True`):
            Whether mask tokens start at zero instead of a truncated normal.
        pred_positions_from_input (`bool`, *optional*, defaults to `False`):
            *Ours.* Whether the predictor numbers positions on the grid of the actual input. The original always uses
            the grid of `crop_size`, which is what `False` keeps.
        loss_exp (`float`, *optional*, defaults to 1.0):
            *Ours, for pre-training.* Exponent p of the error |prediction - target|^p / p.
        weight_distance_loss (`bool`, *optional*, defaults to `False`):
            *Ours, for pre-training of 2.1.* Whether a context token's error counts less the farther it lies from the
            targets.
        offset_context_loss (`bool`, *optional*, defaults to `False`):
            *Ours, for pre-training of 2.1.* Whether these distances are relative to the grid's size.
        context_loss_weight (`float`, *optional*, defaults to 0.5):
            *Ours, for pre-training of 2.1.* Weight of the loss of context tokens where a call gives none.
        auto_steps (`int`, *optional*, defaults to 2):
            *Ours.* Number of frames that [`VJEPA2ACForPreTraining`] predicts from its own predictions.
        action_embed_dim (`int`, *optional*, defaults to 7):
            *Ours.* Number of values of an action and of a state of [`VJEPA2ACModel`]; extrinsics have one fewer.
        use_extrinsics (`bool`, *optional*, defaults to `False`):
            *Ours.* Whether [`VJEPA2ACModel`] is conditioned on camera extrinsics as well.
        num_pooler_layers (`int`, *optional*, defaults to 3):
            Number of self-attention blocks of a probe, before its cross-attention.
        pooler_num_attention_heads (`int`, *optional*, defaults to 16):
            *Ours.* Number of attention heads of a probe: 16 in every published one, whatever the encoder has.
        pooler_layer_norm_eps (`float`, *optional*, defaults to 1e-5):
            *Ours.* Epsilon of the layer norms of a probe.
        attention_dropout (`float`, *optional*, defaults to 0.0):
            Dropout of the attention probabilities in a probe.
        out_layers (`list[int]`, *optional*):
            *Ours.* Indices, from 0, of the encoder blocks whose normalized outputs a probe reads, concatenated on the
            token axis. By default it reads the last block alone.
        num_verb_labels (`int`, *optional*, defaults to 0):
            *Ours.* Number of verb classes of [`VJEPA2ForActionAnticipation`]; 0 leaves actions alone.
        num_noun_labels (`int`, *optional*, defaults to 0):
            *Ours.* Number of noun classes of [`VJEPA2ForActionAnticipation`].
        anticipation_frames_per_second (`float`, *optional*, defaults to 8):
            *Ours.* Rate at which the clips of [`VJEPA2ForActionAnticipation`] are sampled, in frames per second.
        anticipation_num_output_frames (`int`, *optional*, defaults to 2):
            *Ours.* Number of future frames predicted in one step.
        anticipation_num_steps (`int`, *optional*, defaults to 1):
            *Ours.* Number of prediction steps, each fed with the output of the one before.
        anticipation_use_encoder_tokens (`bool`, *optional*, defaults to `True`):
            *Ours.* Whether the probe sees the observed tokens beside the predicted ones.

    Raises:
        ValueError: a width that its number of heads does not divide, a size below one, an entry of `out_layers` or
            `hierarchical_layers` that no block has or that has no norm, or more distillation outputs than levels.

    Source: facebookresearch/vjepa2 at c2963a47, `src/hub/backbones.py` and `configs/eval`; for 2.1, at 204698b4,
    `app/vjepa_2_1/models`.
    """

    model_type = "vjepa2"
    attribute_map = {"num_frames": "frames_per_clip"}
    keys_to_ignore_at_inference = [
        "hidden_states",
        "attentions",
        "view_logits",
        "verb_logits",
        "noun_logits",
        "last_hidden_state",
    ]

    patch_size: int = 16
    tubelet_size: int = 2
    in_chans: int = 3
    crop_size: int = 256
    frames_per_clip: int = 64

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    mlp_ratio: float | int = 4.0
    hidden_act: str = "gelu"
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-6
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    initializer_range: float = 0.02

    use_rope_interleave: bool = False
    interpolate_rope: bool = False
    use_modality_embeddings: bool = False
    use_image_patch_embedder: bool = False
    hierarchical_layers: list[int] | None = None
    num_distillation_outputs: int = 1
    teacher_embed_dim: int | None = None
    use_context_projection: bool = False
    pred_interpolate_rope: bool = False

    use_predictor: bool = True
    pred_hidden_size: int = 384
    pred_num_hidden_layers: int = 12
    pred_num_attention_heads: int = 12
    pred_mlp_ratio: float | int = 4.0
    pred_num_mask_tokens: int = 10
    pred_zero_init_mask_tokens: bool = True
    pred_positions_from_input: bool = False

    loss_exp: float | int = 1.0
    weight_distance_loss: bool = False
    offset_context_loss: bool = False
    context_loss_weight: float | int = 0.5
    auto_steps: int = 2

    action_embed_dim: int = 7
    use_extrinsics: bool = False

    num_pooler_layers: int = 3
    pooler_num_attention_heads: int = 16
    pooler_layer_norm_eps: float = 1e-5
    attention_dropout: float | int = 0.0
    out_layers: list[int] | None = None

    num_verb_labels: int = 0
    num_noun_labels: int = 0
    anticipation_frames_per_second: float | int = 8
    anticipation_num_output_frames: int = 2
    anticipation_num_steps: int = 1
    anticipation_use_encoder_tokens: bool = True

    def validate_architecture(self) -> None:
        for name in ("patch_size", "tubelet_size", "in_chans", "num_hidden_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for width, heads in (("hidden_size", "num_attention_heads"), ("pred_hidden_size", "pred_num_attention_heads")):
            if getattr(self, heads) < 1 or getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"`{width}` ({getattr(self, width)}) must be a multiple of `{heads}` ({getattr(self, heads)})."
                )
        for name in ("out_layers", "hierarchical_layers"):
            for layer in getattr(self, name) or ():
                if not 0 <= layer < self.num_hidden_layers:
                    raise ValueError(
                        f"`{name}` counts encoder blocks from 0 to {self.num_hidden_layers - 1}, got {layer}."
                    )
        self._validate_levels()

    def _validate_levels(self):
        levels = self.hierarchical_layers
        if levels is not None and (not levels or sorted(set(levels)) != levels):
            raise ValueError(
                f"`hierarchical_layers` must name at least one block, in order and each once; got {levels}."
            )
        if not 1 <= self.num_distillation_outputs <= len(levels or [0]):
            raise ValueError(
                f"`num_distillation_outputs` ({self.num_distillation_outputs}) counts levels of `hierarchical_layers` "
                f"({levels}): it must be at least 1 and at most their number, and 1 without any."
            )
        if levels is not None and not set(self.out_layers or ()) <= set(levels):
            raise ValueError(
                f"`out_layers` ({self.out_layers}) must be among `hierarchical_layers` ({levels}): no other block has "
                "a norm for its output."
            )


__all__ = ["VJEPA2Config"]
