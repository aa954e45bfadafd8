"""V-JEPA 2-AC in training: its predictor learns on the features of a frozen encoder.

Paper: V-JEPA 2 (https://arxiv.org/abs/2506.09985), section 3.1. Original code: facebookresearch/vjepa2 at c2963a47,
`app/vjepa_droid/train.py`.

Shapes: as in `modeling_vjepa2_ac.py`.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput, can_return_tuple

from ..pretrained import split_by_decay
from .configuration_vjepa2 import VJEPA2Config
from .modeling_vjepa2_ac import VJEPA2ACModel, normalize


@dataclass
class VJEPA2ACForPreTrainingOutput(ModelOutput):
    """What [`VJEPA2ACForPreTraining`] computes.

    Args:
        loss: scalar in float32, the sum of both.
        teacher_forcing_loss: scalar, the error of predictions from the true frames.
        rollout_loss: scalar, that of predictions from predictions.
        predicted_hidden_states: (B, T - 1, h, w, D), normalized predictions from the true frames.
        rollout_hidden_states: (B, auto_steps, h, w, D), normalized predictions from predictions.
    """

    loss: torch.Tensor | None = None
    teacher_forcing_loss: torch.Tensor | None = None
    rollout_loss: torch.Tensor | None = None
    predicted_hidden_states: torch.Tensor | None = None
    rollout_hidden_states: torch.Tensor | None = None


class VJEPA2ACForPreTraining(VJEPA2ACModel):
    """The world model, with the losses that its predictor learns by. The encoder stays as it is."""

    records_states = False

    def __init__(self, config: VJEPA2Config):
        super().__init__(config)
        self.encoder.requires_grad_(False)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            self.encoder.requires_grad_(False)  # which loading a directory undoes

    def train(self, mode: bool = True) -> "VJEPA2ACForPreTraining":
        """Switch to training or evaluation; the encoder never drops anything."""
        super().train(mode)
        self.encoder.eval()
        return self

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor,
        extrinsics: torch.Tensor | None = None,
        return_loss: bool = True,
    ) -> VJEPA2ACForPreTrainingOutput:
        r"""Predict each frame from those before it: the true ones, and for a few frames from predictions.

        Args:
            pixel_values_videos: (B, T, C, H, W). Each frame is encoded by itself, without gradients.
            actions: (B, T - 1, A), what is done between the frames.
            states: (B, T, A), the gripper's pose at each frame.
            extrinsics: (B, T, A - 1), the camera's pose at each frame; with `config.use_extrinsics`.
            return_loss: compute the losses. The Trainer looks for this argument to evaluate.

        Returns:
            [`VJEPA2ACForPreTrainingOutput`].

        Raises:
            ValueError: too few frames for `config.auto_steps`, or conditions of the wrong shape.
        """
        steps = self.config.auto_steps
        if pixel_values_videos.ndim != 5 or not 1 <= steps < pixel_values_videos.shape[1]:
            raise ValueError(
                f"Expected videos (batch, frames, channels, height, width) of more frames than `config.auto_steps` "
                f"({steps}, at least 1), got {tuple(pixel_values_videos.shape)}."
            )
        with torch.no_grad():
            features = self.encode_frames(pixel_values_videos)  # (B, T, h, w, D)
        states, cameras = states[:, :-1], None if extrinsics is None else extrinsics[:, :-1]
        forced = self._predict(features[:, :-1], actions, states, cameras)

        seen = torch.cat([features[:, :1], forced[:, :1]], dim=1)
        for count in range(2, steps + 1):
            conditions = (given if given is None else given[:, :count] for given in (actions, states, cameras))
            seen = torch.cat([seen, self._predict(seen, *conditions)[:, -1:]], dim=1)
        rolled = seen[:, 1:]

        forced_loss = rollout_loss = None
        if return_loss:
            forced_loss, rollout_loss = self._error(forced, features), self._error(rolled, features)
        return VJEPA2ACForPreTrainingOutput(
            loss=forced_loss + rollout_loss if return_loss else None,
            teacher_forcing_loss=forced_loss,
            rollout_loss=rollout_loss,
            predicted_hidden_states=forced,
            rollout_hidden_states=rolled,
        )

    def _predict(
        self, features: torch.Tensor, actions: torch.Tensor, states: torch.Tensor, extrinsics: torch.Tensor | None
    ) -> torch.Tensor:
        """Normalized predictions (B, t, h, w, D) of the frames after those of `features`."""
        predicted = self.predictor(features, actions, states, extrinsics=extrinsics).last_hidden_state
        return normalize(predicted).unflatten(1, features.shape[1:4])

    def _error(self, predicted: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Mean of |difference|^p / p to the frames from the second on, in float32."""
        difference = predicted.float() - features[:, 1 : predicted.shape[1] + 1].float()
        return (difference.abs() ** self.config.loss_exp).mean() / self.config.loss_exp

    def parameter_groups(self, weight_decay: float) -> list[dict]:
        """Groups of parameters for AdamW: weights of the predictor, and the rest of it.

        Args:
            weight_decay: of the weights. The rest, biases and parameters of one dimension, doesn't decay.

        Returns:
            Two groups with `params` and `weight_decay`. The encoder's parameters are in none.
        """
        return split_by_decay([self.predictor], weight_decay)


__all__ = ["VJEPA2ACForPreTraining"]
