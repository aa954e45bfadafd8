"""V-JEPA 2 and 2.1 in pre-training: the model, the teacher that it learns from, and the loss.

Papers: V-JEPA 2 (https://arxiv.org/abs/2506.09985). Original code: facebookresearch/vjepa2 at c2963a47,
`app/vjepa/train.py`, and at 204698b4, `app/vjepa_2_1/train.py`.

Shapes: B videos of T frames with C channels and H × W pixels; N tokens, K of them context and L targets; S levels, the
last `config.num_distillation_outputs` of `config.hierarchical_layers`, with D channels each. Clips of several lengths
are a list, and masks of a length are a list, too.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import can_return_tuple

from vidformers.layers.cpu import float32_products
from vidformers.layers.patchify import Grid, select_tokens

from ..pretrained import NestedOutput, split_by_decay
from .configuration_vjepa2 import VJEPA2Config
from .masking_vjepa2 import Masks, context_distances, join_masks
from .modeling_vjepa2 import (
    VJEPA2Encoder,
    VJEPA2Model,
    VJEPA2PatchEmbeddings3D,
    VJEPA2PreTrainedModel,
    predicted_size,
)
from .sampling_vjepa2 import VJEPA2MaskCollator


MaskLists = Masks | Sequence[Masks]


@dataclass
class VJEPA2ForPreTrainingOutput(NestedOutput):
    """What [`VJEPA2ForPreTraining`] computes. What follows the losses is a tuple by length, of tuples by mask.

    Args:
        loss: scalar in float32, `prediction_loss` and the weighted `context_loss`.
        prediction_loss: scalar, the mean over lengths and masks of the error at target tokens.
        context_loss: scalar, likewise at context tokens, before its weight; `None` for models without a projection
            for them.
        target_hidden_states: for each length (B, N, S·D), the teacher's features of all tokens, each level normalized.
        predicted_hidden_states: for each length and mask (B, L, S·D), predicted features of the target tokens.
        context_predictions: for each length and mask (B, K, S·D), predicted features of the context tokens; `None`
            for models without a projection for them.
    """

    loss: torch.Tensor | None = None
    prediction_loss: torch.Tensor | None = None
    context_loss: torch.Tensor | None = None
    target_hidden_states: tuple[torch.Tensor, ...] | None = None
    predicted_hidden_states: tuple[tuple[torch.Tensor, ...], ...] | None = None
    context_predictions: tuple[tuple[torch.Tensor, ...], ...] | None = None


class VJEPA2ForPreTraining(VJEPA2PreTrainedModel):
    """Encoder and predictor, which learn to predict the features of a slower copy of the encoder, the teacher.

    A training calls it, takes a step of the optimizer, then calls `update_teacher`. Without a teacher's weights, as in
    a new model or a directory of [`VJEPA2Model`], the teacher begins as a copy of the encoder.
    """

    records_states = False
    _keep_in_fp32_modules_strict = ("teacher",)  # half precision would round its small moves away

    def __init__(self, config: VJEPA2Config):
        super().__init__(config)
        self.vjepa2 = VJEPA2Model(config)
        if self.vjepa2.predictor is None:
            raise ValueError("Pre-training needs the predictor; set `config.use_predictor` to True.")
        if predicted_size(config) != config.num_distillation_outputs * config.hidden_size:
            raise ValueError(
                f"The predictor of this configuration predicts features of another encoder (`teacher_embed_dim` "
                f"{config.teacher_embed_dim}, `hidden_size` {config.hidden_size}), as those of distilled models do. "
                "Pre-training takes a copy of the encoder for teacher: leave `teacher_embed_dim` out."
            )
        self.teacher = VJEPA2Encoder(config)
        self.teacher.requires_grad_(False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            for copied, learned in zip(self.teacher.parameters(), self.vjepa2.encoder.parameters(), strict=True):
                init.copy_(copied, learned)
            self.teacher.requires_grad_(False)  # which loading a directory undoes

    def train(self, mode: bool = True) -> "VJEPA2ForPreTraining":
        """Switch to training or evaluation; the teacher never drops anything."""
        super().train(mode)
        self.teacher.eval()
        return self

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor | Sequence[torch.Tensor],
        context_mask: MaskLists,
        target_mask: MaskLists,
        context_loss_weight: float | None = None,
        return_loss: bool = True,
    ) -> VJEPA2ForPreTrainingOutput:
        r"""Predict the teacher's features of target tokens from context tokens.

        Args:
            pixel_values_videos: (B, T, C, H, W), or a list of such tensors for clips of several lengths. The mask
                token of a length is that of its place in the list.
            context_mask: a list with (B, K) token numbers for each mask; for several lengths a list of such lists. K
                may differ from mask to mask.
            target_mask: likewise, (B, L), as many as of `context_mask`.
            context_loss_weight: weight of the loss of context tokens in models that predict them, by default
                `config.context_loss_weight`. [`~vidformers.training.context_weight_schedule`] raises it in a training.
            return_loss: compute the losses. The Trainer looks for this argument to evaluate.

        Returns:
            [`VJEPA2ForPreTrainingOutput`].

        Raises:
            ValueError: input or masks of the wrong shape, or lists that don't fit.
        """
        groups = _by_length(pixel_values_videos, context_mask, target_mask)
        results = [self._run_length(index, *group, return_loss=return_loss) for index, group in enumerate(groups)]
        targets, predictions, contexts, errors, context_errors = zip(*results, strict=True)
        has_context = self.config.use_context_projection
        loss = prediction_loss = context_loss = None
        if return_loss:
            loss = prediction_loss = torch.stack([error for each in errors for error in each]).mean()
            if has_context:
                weight = self.config.context_loss_weight if context_loss_weight is None else context_loss_weight
                context_loss = torch.stack([error for each in context_errors for error in each]).mean()
                loss = prediction_loss + weight * context_loss
        return VJEPA2ForPreTrainingOutput(
            loss=loss,
            prediction_loss=prediction_loss,
            context_loss=context_loss,
            target_hidden_states=targets,
            predicted_hidden_states=predictions,
            context_predictions=contexts if has_context else None,
        )

    def _run_length(
        self,
        index: int,
        video: torch.Tensor,
        context_masks: list[torch.Tensor],
        target_masks: list[torch.Tensor],
        return_loss: bool,
    ) -> tuple:
        """Targets, and by mask: predictions, context predictions and the losses of both, of clips of one length."""
        targets, grid = self._targets(video)  # (B, N, S·D)
        predictions, contexts, errors, context_errors = [], [], [], []
        for context, target in zip(context_masks, target_masks, strict=True):
            context = join_masks("context_mask", context, video, limit=targets.shape[1])
            target = join_masks("target_mask", target, video, limit=targets.shape[1])
            predicted = self.vjepa2(
                video, context_mask=context, target_mask=target, mask_index=index, return_dict=True
            ).predictor_output
            predictions.append(predicted.last_hidden_state)
            if return_loss:
                errors.append(self._error(predicted.last_hidden_state, targets, target))
            if self.config.use_context_projection:
                contexts.append(predicted.context_predictions)
                if return_loss:
                    weights = self._context_weights(context, target, grid)
                    context_errors.append(self._error(predicted.context_predictions, targets, context, weights))
        return targets, tuple(predictions), tuple(contexts), errors, context_errors

    @torch.no_grad()
    def _targets(self, video: torch.Tensor) -> tuple[torch.Tensor, Grid]:
        """The teacher's features of whole videos (B, N, S·D), each level of each token normalized, and their grid."""
        encoded = self.teacher(video)
        levels = self.vjepa2.predictor_input(encoded).float().unflatten(-1, (-1, self.config.hidden_size))
        return nn.functional.layer_norm(levels, levels.shape[-1:]).flatten(2), encoded.grid

    def _error(
        self,
        predicted: torch.Tensor,
        targets: torch.Tensor,
        token_ids: torch.Tensor,
        weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean over tokens and channels of |difference|^p / p, in float32; `weights` (B, K) are those of tokens."""
        difference = (predicted.float() - select_tokens(targets, token_ids)).abs()
        errors = difference**self.config.loss_exp
        if weights is not None:
            errors = errors * weights[..., None]
        return errors.mean() / self.config.loss_exp

    def _context_weights(self, context: torch.Tensor, target: torch.Tensor, grid: Grid) -> torch.Tensor | None:
        """Weights of context tokens (B, K): the nearer to a target, the more."""
        if not self.config.weight_distance_loss:
            return None
        return 1 / context_distances(context, target, grid, self.config.offset_context_loss)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the encoder: teacher ← momentum · teacher + (1 - momentum) · encoder.

        Args:
            momentum: 0 makes it a copy, 1 leaves it. [`~vidformers.training.momentum_schedule`] gives it.
        """
        teacher, encoder = list(self.teacher.parameters()), list(self.vjepa2.encoder.parameters())
        torch._foreach_mul_(teacher, momentum)
        torch._foreach_add_(teacher, encoder, alpha=1 - momentum)

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Groups of parameters for AdamW: weights of the encoder, of the predictor, and the rest of both.

        Args:
            weight_decay: of the weights. The rest, biases and parameters of one dimension, doesn't decay.

        Returns:
            Four groups with `params` and `weight_decay`. The teacher's parameters are in none.
        """
        return split_by_decay([self.vjepa2.encoder, self.vjepa2.predictor], weight_decay)

    @classmethod
    def for_pretraining(cls, config: VJEPA2Config, num_frames: int, crop_size: int) -> VJEPA2Config:
        """The same configuration for clips of another size, on whose grid the predictor then numbers positions."""
        config = copy.deepcopy(config)
        config.frames_per_clip, config.crop_size = num_frames, crop_size
        return config

    def mask_collator(self, masks: Sequence[Mapping[str, Any]], num_frames: int, crop_size: int) -> VJEPA2MaskCollator:
        sides = {"patch_size": self.config.patch_size, "tubelet_size": min(self.config.tubelet_size, num_frames)}
        return VJEPA2MaskCollator(masks, [num_frames], crop_size=crop_size, **sides)

    @property
    def learns_from_images(self) -> bool:
        return self.config.use_image_patch_embedder

    @property
    def may_leave_parameters_out(self) -> bool:
        return self.config.use_image_patch_embedder or self.config.use_modality_embeddings

    @staticmethod
    def pretraining_features(output: VJEPA2ForPreTrainingOutput) -> torch.Tensor:
        return output.target_hidden_states[0].flatten(0, 1)

    @torch.no_grad()
    def features_model(self) -> VJEPA2Model:
        """The model that evaluations use: the teacher as the encoder, and the predictor. It shares their memory."""
        model = VJEPA2Model(self.config)
        model.encoder, model.predictor = self.teacher, self.vjepa2.predictor
        return model.eval()

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """The teacher's features on their grid.

        Args:
            pixel_values_videos: (B, T, C, H, W), or images (B, C, H, W).

        Returns:
            (B, t, h, w, D), or (B, t, h, w, S·D) with `config.hierarchical_layers`.
        """
        with float32_products(self.dtype, self.device):
            encoded = self.teacher(pixel_values_videos)
        levels = encoded.hierarchical_hidden_state
        return (encoded.last_hidden_state if levels is None else levels).unflatten(1, tuple(encoded.grid))

    @property
    def frames_per_token(self) -> int:
        return self.config.tubelet_size

    def get_input_embeddings(self) -> VJEPA2PatchEmbeddings3D:
        return self.vjepa2.get_input_embeddings()


def _by_length(
    videos: torch.Tensor | Sequence[torch.Tensor], context_mask: MaskLists, target_mask: MaskLists
) -> list[tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]]:
    """Videos and masks of each length; a ValueError for lists that don't fit."""
    if isinstance(videos, torch.Tensor):
        videos, context_mask, target_mask = [videos], [context_mask], [target_mask]
    masks = []
    for name, given in (("context_mask", context_mask), ("target_mask", target_mask)):
        if isinstance(given, torch.Tensor) or len(given) != len(videos) or not videos:
            raise ValueError(
                f"For clips of several lengths, a list of {len(videos)} videos, `{name}` must be a list of as many "
                "lists, each with a (batch, count) tensor for every mask."
            )
        masks.append([[each] if isinstance(each, torch.Tensor) else list(each) for each in given])
    for context, target in zip(*masks, strict=True):
        if len(context) != len(target) or not context:
            raise ValueError(
                f"`context_mask` and `target_mask` form pairs, at least one for each length; got {len(context)} and "
                f"{len(target)}."
            )
    return list(zip(videos, *masks, strict=True))


__all__ = ["VJEPA2ForPreTraining"]
