"""VideoMAE's pre-training: a small decoder predicts the pixels of masked tubelets from the visible ones.

Paper: https://arxiv.org/abs/2203.12602. Original code: MCG-NJU/VideoMAE at 14ef8d85, `modeling_pretrain.py` and
`engine_for_pretraining.py`. With dual masking: https://arxiv.org/abs/2303.16727, OpenGVLab/VideoMAEv2 at 29eab1e8, the
files of the same names.

Shapes: as in `modeling_videomae.py`; a token is a tubelet of s frames and p × p pixels, P = s·p·p·C values; V tokens
are visible and K are predicted: the masked ones, or under dual masking those that the decoder is asked for.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from vidformers.layers.block import Records
from vidformers.layers.patchify import Grid, tubelets_of

from ..pretrained import split_by_decay
from .configuration_videomae import VideoMAEConfig
from .masking_videomae import VideoMAEMaskCollator, require, split_decoded, split_tokens
from .modeling_videomae import BlockSize, VideoMAEModel, VideoMAEPreTrainedModel, videomae_layers
from .positions_videomae import VideoMAEPositions


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass
class VideoMAEForPreTrainingOutput(ModelOutput):
    """What [`VideoMAEForPreTraining`] computes.

    Args:
        loss: scalar in float32, the mean squared error over the predicted tokens that were masked, of all videos
            together.
        logits: (B, K, P), the predicted pixels of the tokens, by frame, row, column and channel; in ascending order of
            the tokens, or in that of the numbers that were given.
        hidden_states: of the encoder, (B, V, D): the input of every block and the output of the last one, before the
            norm.
        attentions: (B, heads, V, V) of every encoder block.
        decoder_hidden_states: of the decoder, (B, V + K, D): likewise; visible tokens first, then predicted ones.
        decoder_attentions: (B, heads, V + K, V + K) of every decoder block.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    decoder_hidden_states: tuple[torch.Tensor, ...] | None = None
    decoder_attentions: tuple[torch.Tensor, ...] | None = None


class VideoMAEDecoder(nn.Module):
    """The decoder's blocks, norm and projection to pixels."""

    def __init__(self, config: VideoMAEConfig):
        super().__init__()
        width = config.decoder_hidden_size
        size = BlockSize(width, config.decoder_intermediate_size, config.decoder_num_attention_heads)
        rows, columns = config.patch_height_width
        self.decoder_layers = videomae_layers(config, size, config.decoder_num_hidden_layers)
        self.norm = nn.LayerNorm(width, eps=config.head_layer_norm_eps)
        self.head = nn.Linear(width, config.num_channels * config.tubelet_size * rows * columns)

    def forward(
        self,
        hidden_states: torch.Tensor,
        num_visible: int,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor, Records]:
        """Predict pixels of all tokens but the visible ones.

        Args:
            hidden_states: (B, V + K, D), visible tokens first.
            num_visible: how many these are.
            output_hidden_states: see [`VideoPreTrainedModel`].
            output_attentions: see [`VideoPreTrainedModel`].

        Returns:
            (B, K, P), and what the blocks recorded.
        """
        records = Records(hidden_states, output_hidden_states, output_attentions)
        for layer in self.decoder_layers:
            hidden_states, probabilities = layer(hidden_states, output_attentions=output_attentions)
            records.add(hidden_states, probabilities)
        return self.head(self.norm(hidden_states[:, num_visible:])), records


class VideoMAEForPreTraining(VideoMAEPreTrainedModel):
    """The encoder on visible tokens, and a small decoder that predicts the pixels of masked ones."""

    is_initialized_by_fans = True

    def __init__(self, config: VideoMAEConfig):
        super().__init__(config)
        self.videomae = VideoMAEModel(config, for_pretraining=True, has_pooler=False)
        self.encoder_to_decoder = nn.Linear(config.hidden_size, config.decoder_hidden_size, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_hidden_size))
        self.position_embeddings = VideoMAEPositions(config, config.decoder_hidden_size)
        self.decoder = VideoMAEDecoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.kaiming_uniform_(self.encoder_to_decoder.weight, a=sqrt(5))  # as PyTorch starts linear layers
            std = self.config.initializer_range
            init.trunc_normal_(self.mask_token, std=std, a=-std, b=std)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor,
        decode_masked_pos: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_loss: bool = True,
    ) -> VideoMAEForPreTrainingOutput:
        r"""Predict the pixels of tokens from the visible ones.

        Args:
            pixel_values: (B, T, C, H, W), normalized with ImageNet's statistics if they have three channels.
            bool_masked_pos: (B, N), true or 1 where a token is masked, as many in every video; or (B, K) integers, the
                numbers of the masked tokens. [`tube_mask`] and [`random_mask`] draw masks.
            decode_masked_pos: (B, N), true or 1 where a token is not predicted, as many in every video: dual masking,
                for which [`dual_masks`] draws both masks. All other tokens are predicted, also those that the encoder
                sees; these don't count in the loss. By default the masked tokens are predicted, all of them.
            interpolate_pos_encoding: resize the trained positions to an input of another size.
            output_hidden_states: see [`VideoPreTrainedModel`]; of encoder and decoder.
            output_attentions: see [`VideoPreTrainedModel`]; of encoder and decoder.
            return_loss: compute the loss. By this argument the Trainer of transformers knows that there is one
                without labels.

        Returns:
            [`VideoMAEForPreTrainingOutput`].

        Raises:
            ValueError: input or mask of the wrong shape, different counts in a mask, nothing visible, nothing masked
                or nothing to predict, or an input of another size than the configured one without a way to get its
                positions.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        video, grid = self.videomae.embeddings.cut(pixel_values)
        visible_ids, masked_ids = self._split(bool_masked_pos, video, grid)
        predicted_ids = masked_ids
        if decode_masked_pos is not None:
            predicted_ids = split_decoded(decode_masked_pos, video, grid)
        interpolate = interpolate_pos_encoding
        encoded = self.videomae(
            video, visible_ids=visible_ids, interpolate_pos_encoding=interpolate, return_dict=True, **flags
        )
        visible = self.encoder_to_decoder(encoded.last_hidden_state)  # (B, V, D)

        positions = self.position_embeddings(grid, interpolate, video.device)[0]  # (N, D)
        visible = visible + positions[visible_ids].to(visible.dtype)
        asked = self.mask_token.to(visible.dtype) + positions[predicted_ids].to(visible.dtype)  # (B, K, D)
        tokens = torch.cat([visible, asked], dim=1)
        logits, decoded = self.decoder(tokens, num_visible=visible_ids.shape[1], **flags)

        loss = None
        if return_loss:
            not_counted = None if decode_masked_pos is None else visible_ids
            loss = self._loss(logits.float(), self.targets(video, grid, predicted_ids), predicted_ids, not_counted)
        return VideoMAEForPreTrainingOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
        )

    @staticmethod
    def _loss(
        logits: torch.Tensor, targets: torch.Tensor, predicted_ids: torch.Tensor, not_counted: torch.Tensor | None
    ) -> torch.Tensor:
        """Mean squared error over the predicted tokens but `not_counted` (B, V), whichever videos they are of."""
        if not_counted is None:
            return nn.functional.mse_loss(logits, targets)
        is_hidden = ~(predicted_ids[:, :, None] == not_counted[:, None]).any(-1)  # (B, K)
        require(is_hidden.any(), "`decode_masked_pos` leaves nothing to predict of what `bool_masked_pos` hides.")
        errors = (logits - targets).square().mean(-1)
        return torch.where(is_hidden, errors, 0.0).sum() / is_hidden.sum()

    @staticmethod
    def _split(
        bool_masked_pos: torch.Tensor | None, video: torch.Tensor, grid: Grid
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[`split_tokens`] of a mask that must be there and mask something."""
        if bool_masked_pos is None:
            raise ValueError(
                "Pre-training predicts masked tokens: pass `bool_masked_pos`, for instance "
                "`vidformers.tube_mask(model.config.token_grid, batch_size=len(pixel_values))`."
            )
        visible_ids, masked_ids = split_tokens(bool_masked_pos, video, grid)
        torch._check_value(
            masked_ids.shape[1] >= 1, lambda: "`bool_masked_pos` masks no token, so that nothing is to be predicted."
        )
        return visible_ids, masked_ids

    @classmethod
    def for_pretraining(cls, config: VideoMAEConfig, num_frames: int, crop_size: int) -> VideoMAEConfig:
        """The same configuration for clips of another size."""
        config = copy.deepcopy(config)
        config.num_frames, config.image_size = num_frames, crop_size
        return config

    def mask_collator(
        self, masks: Sequence[Mapping[str, Any]], num_frames: int, crop_size: int
    ) -> VideoMAEMaskCollator:
        (mask,) = masks
        grid = self.for_pretraining(self.config, num_frames, crop_size).token_grid
        return VideoMAEMaskCollator(grid, **mask)

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Two groups for AdamW: the weights, and the rest; mask token and learned positions don't decay either.

        Source: `optim_factory.py`.
        """
        return split_by_decay([self], weight_decay, ("mask_token", "position_embeddings.table"))

    @torch.no_grad()
    def targets(self, video: torch.Tensor, grid: Grid, token_ids: torch.Tensor) -> torch.Tensor:
        """The pixels that the logits are compared with.

        Args:
            video: (B, T, C, H, W) as given to the model, divisible into tubelets.
            grid: its grid.
            token_ids: (B, K) token numbers.

        Returns:
            (B, K, P) float32: pixels in [0, 1] or, with `config.norm_pix_loss`, normalized within each tubelet and
            channel. Videos of other than three channels keep the values that they came with.

        Source: `engine_for_pretraining.py`.
        """
        pixels, (mean, std) = self._tubelets(video, grid, token_ids), self._statistics(video.device)
        if self.config.norm_pix_loss:
            pixels, deviation = center(pixels)
            pixels = pixels * (std / (deviation * std + 1e-6))
        else:
            pixels = pixels * std + mean
        return pixels.transpose(2, 3).flatten(2)

    @torch.no_grad()
    def reconstruct(
        self,
        pixel_values: torch.Tensor,
        bool_masked_pos: torch.Tensor,
        logits: torch.Tensor,
        decode_masked_pos: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The video with its predicted tubelets as the model fills them in, to look at.

        With `config.norm_pix_loss` the model predicts no brightness and contrast; those of the true tubelets are used,
        as the original's `run_videomae_vis.py` does.

        Args:
            pixel_values: (B, T, C, H, W) as given to the model.
            bool_masked_pos: the mask, as given to the model: (B, N) booleans, or 0 and 1; or (B, K) integers, the
                numbers of the masked tokens.
            logits: (B, K, P), what it returned, in any floating-point type.
            decode_masked_pos: (B, N), the decoder's mask, if the model was given one.

        Returns:
            (B, T, C, H, W) float32 in [0, 1] up to errors of the prediction; without the frames and pixels that fill
            no tubelet. Videos of other than three channels keep the scale that they came with.
        """
        video, grid = self.videomae.embeddings.cut(pixel_values)
        _, ids = self._split(bool_masked_pos, video, grid)
        if decode_masked_pos is not None:
            ids = split_decoded(decode_masked_pos, video, grid)
        tubelets, (mean, std) = self._tubelets(video, grid), self._statistics(video.device)
        index = ids[:, :, None, None].expand(-1, -1, *tubelets.shape[2:])  # (B, K, C, s·p·p)
        predicted = logits.float().unflatten(-1, (-1, self.config.num_channels)).transpose(2, 3)
        pixels = tubelets * std + mean
        if self.config.norm_pix_loss:
            true = pixels.gather(1, index)
            centered, deviation = center(true)
            predicted = predicted * (deviation + 1e-6) + (true - centered)
        return self._frames(pixels.scatter(1, index, predicted), grid)

    def _tubelets(self, video: torch.Tensor, grid: Grid, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Values of tubelets as they were given, (B, N or K, C, s·p·p), float32."""
        sides = self.config.tubelet_size, self.config.patch_height_width
        return tubelets_of(video, grid, *sides, token_ids).flatten(3).float()

    def _statistics(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation that videos were normalized with, (C, 1) each: ImageNet's, or 0 and 1."""
        count = self.config.num_channels
        values = (IMAGENET_MEAN, IMAGENET_STD) if count == 3 else ((0.0,) * count, (1.0,) * count)
        mean, std = torch.tensor(values, device="cpu").to(device, non_blocking=True)[..., None]
        return mean, std

    def _frames(self, pixels: torch.Tensor, grid: Grid) -> torch.Tensor:
        """The inverse of `_tubelets`: (B, N, C, s·p·p) to (B, T, C, H, W)."""
        sides = (self.config.tubelet_size, *self.config.patch_height_width)
        pixels = pixels.unflatten(3, sides).unflatten(1, tuple(grid))  # (B, grid t, grid h, grid w, C, s, p, p)
        return pixels.permute(0, 1, 5, 4, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(1, 2)


def center(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (..., S) without their mean, and their deviation (..., 1) by the unbiased variance."""
    centered = pixels - pixels.mean(-1, keepdim=True)
    return centered, torch.linalg.vector_norm(centered, dim=-1, keepdim=True) / sqrt(max(pixels.shape[-1] - 1, 1))


__all__ = ["VideoMAEForPreTraining"]
