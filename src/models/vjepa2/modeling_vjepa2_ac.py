"""V-JEPA 2-AC: a V-JEPA 2 encoder and a predictor of the next frame's features under a robot's action.

Paper: V-JEPA 2 (https://arxiv.org/abs/2506.09985), section 3. Original code: facebookresearch/vjepa2 at c2963a47,
`src/models/ac_predictor.py` and `notebooks/utils/world_model_wrapper.py`.

Shapes: B videos of T frames with C channels and H × W pixels; a step is one frame on a grid of h × w tokens; D
channels of a feature, P of a predictor token; A values of an action. K condition tokens (action, state and, where the
model was trained with them, extrinsics) come before the tokens of their step.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput, can_return_tuple

from vidformers.layers.block import Records
from vidformers.layers.cpu import float32_products
from vidformers.layers.patchify import Grid
from vidformers.layers.rope import RotaryTable, rotary_table

from ..pretrained import NestedOutput
from .configuration_vjepa2 import VJEPA2Config
from .modeling_vjepa2 import Past, VJEPA2Encoder, VJEPA2PatchEmbeddings3D, VJEPA2PreTrainedModel, predictor_layers


@dataclass
class VJEPA2ACPredictorOutput(ModelOutput):
    """What the action-conditioned predictor computes.

    Args:
        last_hidden_state: (B, T·h·w, D): at every step, the features of the frame that follows. They are not
            normalized, unlike those that the predictor reads.
        hidden_states: the input of every block and the output of the last one, (B, T·(K + h·w), P).
        attentions: probabilities of every block, (B, heads, T·(K + h·w), T·(K + h·w)).
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VJEPA2ACModelOutput(NestedOutput):
    """What [`VJEPA2ACModel`] computes.

    Args:
        last_hidden_state: the normalized features of the frames, (B, T·h·w, D).
        hidden_states: of the encoder, every frame by itself: (B, T·h·w, D); `None` if it did not run.
        attentions: of the encoder, (B, T, heads, h·w, h·w); `None` if it did not run.
        predictor_output: a [`VJEPA2ACPredictorOutput`].
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    predictor_output: VJEPA2ACPredictorOutput | None = None


class VJEPA2ACPredictorEmbeddings(nn.Module):
    """Brings features and conditions to the predictor's width, and puts them in order."""

    def __init__(self, config: VJEPA2Config):
        super().__init__()
        self.config = config
        self.predictor_embeddings = nn.Linear(config.hidden_size, config.pred_hidden_size)
        self.action_encoder = nn.Linear(config.action_embed_dim, config.pred_hidden_size)
        self.state_encoder = nn.Linear(config.action_embed_dim, config.pred_hidden_size)
        # Every file has it, also those of models that were trained without extrinsics.
        self.extrinsics_encoder = nn.Linear(config.action_embed_dim - 1, config.pred_hidden_size)

    def forward(
        self,
        features: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor,
        extrinsics: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens (B, T, K + h·w, P) of features (B, T, h, w, D) and their conditions (B, T, …)."""
        tokens = self.predictor_embeddings(features.flatten(1, 3))  # (B, T·h·w, P): bitsandbytes takes three axes
        tokens = tokens.unflatten(1, (features.shape[1], -1))  # (B, T, h·w, P)
        conditions = [self.action_encoder(actions.to(tokens.dtype)), self.state_encoder(states.to(tokens.dtype))]
        if extrinsics is not None:
            conditions.append(self.extrinsics_encoder(extrinsics.to(tokens.dtype)))
        return torch.cat([torch.stack(conditions, dim=2), tokens], dim=2)


class VJEPA2ACPredictor(nn.Module):
    """Predicts the features of each next frame from those of the frames so far, actions and states."""

    def __init__(self, config: VJEPA2Config):
        super().__init__()
        self.config = config
        self.embeddings = VJEPA2ACPredictorEmbeddings(config)
        self.layer = predictor_layers(config)
        self.layernorm = nn.LayerNorm(config.pred_hidden_size, eps=config.layer_norm_eps)
        self.proj = nn.Linear(config.pred_hidden_size, config.hidden_size)

    def forward(
        self,
        features: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor,
        extrinsics: torch.Tensor | None = None,
        pasts: list[Past] | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> VJEPA2ACPredictorOutput:
        """Predict. A step sees itself and the steps before it; all of the step's tokens see each other.

        Args:
            features: (B, T, h, w, D), normalized features of T frames.
            actions: (B, T, A), what is done at each frame.
            states: (B, T, A), the robot's pose at each frame.
            extrinsics: (B, T, A - 1), the camera's pose at each frame.
            pasts: of each block, what it saw of the steps before these T; a new [`Past`] where there are none.
            output_hidden_states: see [`VideoPreTrainedModel`].
            output_attentions: see [`VideoPreTrainedModel`].
        """
        self._check(features, actions, states, extrinsics)
        grid = Grid(*features.shape[1:4])
        num_conditions = 2 if extrinsics is None else 3
        hidden_states = self.embeddings(features, actions, states, extrinsics=extrinsics).flatten(
            1, 2
        )  # (B, T·(K + h·w), P)
        tokens_per_step = num_conditions + grid.h * grid.w
        first = pasts[0].num_tokens // tokens_per_step if pasts else 0
        rotary = self._rotary(grid, num_conditions, hidden_states, first)
        # A single step sees all that there is.
        mask = causal_mask(grid.t, tokens_per_step, hidden_states.device, first) if grid.t > 1 else None

        records = Records(hidden_states, output_hidden_states, output_attentions)
        for layer, past in zip(self.layer, pasts or [None] * len(self.layer), strict=True):
            hidden_states, probabilities = layer(
                hidden_states, rotary=rotary, mask=mask, past=past, output_attentions=output_attentions
            )
            records.add(hidden_states, probabilities)

        frames = hidden_states.unflatten(1, (grid.t, -1))[:, :, num_conditions:].flatten(1, 2)  # (B, T·h·w, P)
        return VJEPA2ACPredictorOutput(
            last_hidden_state=self.proj(self.layernorm(frames)),
            hidden_states=records.hidden_states,
            attentions=records.attentions,
        )

    def _rotary(self, grid: Grid, num_conditions: int, hidden_states: torch.Tensor, first: int = 0) -> RotaryTable:
        """Rotary factors of all tokens, from step `first` on.

        Conditions turn with time alone: they stand at row and column 0.
        Rows and columns of other grids than that of `config.crop_size` are spread over it, as in the original's
        `ACRoPEAttention` ("snap spatial positions to grid size").
        """
        config, device = self.config, hidden_states.device
        side = config.crop_size // config.patch_size
        place = torch.arange(grid.h * grid.w, device=device)
        row, column = place // grid.w * (side / grid.h), place % grid.w * (side / grid.w)
        row, column = (nn.functional.pad(axis, (num_conditions, 0)).repeat(grid.t)[None] for axis in (row, column))
        time = first + step_numbers(grid.t, num_conditions + grid.h * grid.w, device)[None]
        head_dim = config.pred_hidden_size // config.pred_num_attention_heads
        return rotary_table((time, row, column), head_dim, pairing="tiled", dtype=hidden_states.dtype)

    def _check(
        self, features: torch.Tensor, actions: torch.Tensor, states: torch.Tensor, extrinsics: torch.Tensor | None
    ) -> None:
        """Raise for conditions that are missing, superfluous or of the wrong shape."""
        config = self.config
        if features.ndim != 5 or features.shape[-1] != config.hidden_size:
            raise ValueError(
                f"Expected features (batch, frames, rows, columns, {config.hidden_size}), as `encode_frames` returns "
                f"them, got {tuple(features.shape)}."
            )
        if (extrinsics is not None) != config.use_extrinsics:
            raise ValueError(
                f"`config.use_extrinsics` is {config.use_extrinsics}, and `extrinsics` "
                f"{'are missing' if config.use_extrinsics else 'were given'}: give them to models that were trained "
                "with them, and to no others."
            )
        widths = {"actions": config.action_embed_dim, "states": config.action_embed_dim}
        widths["extrinsics"] = config.action_embed_dim - 1
        for (name, width), given in zip(widths.items(), (actions, states, extrinsics), strict=True):
            expected = (*features.shape[:2], width)
            if given is not None and tuple(given.shape) != expected:
                raise ValueError(
                    f"Expected `{name}` of shape {expected}, one for each frame, got {tuple(given.shape)}."
                )


def step_numbers(num_steps: int, tokens_per_step: int, device: torch.device) -> torch.Tensor:
    """The step of every token, (num_steps·tokens_per_step,)."""
    return torch.arange(num_steps, device=device).repeat_interleave(tokens_per_step)


def causal_mask(num_steps: int, tokens_per_step: int, device: torch.device, first: int = 0) -> torch.Tensor:
    """(1, 1, Nq, Nk) booleans, True where the key's step is the query's or one before it.

    There are keys of `first` steps more than queries, which come before these.
    """
    steps = step_numbers(first + num_steps, tokens_per_step, device)
    return (steps[first * tokens_per_step :, None] >= steps)[None, None]


class VJEPA2ACModel(VJEPA2PreTrainedModel):
    """World model for robots: the encoder, frame by frame, and the action-conditioned predictor."""

    encodes_frames_separately = True

    def __init__(self, config: VJEPA2Config):
        super().__init__(config)
        self.encoder = VJEPA2Encoder(config)
        self.predictor = VJEPA2ACPredictor(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        actions: torch.Tensor | None = None,
        states: torch.Tensor | None = None,
        extrinsics: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> VJEPA2ACModelOutput:
        r"""Predict, for every frame, the features of the frame after it.

        Args:
            pixel_values_videos: (B, T, C, H, W). Each frame is encoded by itself.
            actions: (B, T, A): at each frame, the change of the gripper's position, orientation and opening.
            states: (B, T, A): at each frame, the gripper's position, orientation and opening.
            extrinsics: (B, T, A - 1): at each frame, the camera's position and orientation; with
                `config.use_extrinsics`.
            features: (B, T, h, w, D): what `encode_frames` returned, instead of `pixel_values_videos`.
            output_hidden_states: see [`VideoPreTrainedModel`]; of encoder and predictor.
            output_attentions: see [`VideoPreTrainedModel`]; of encoder and predictor.

        Returns:
            [`VJEPA2ACModelOutput`].

        Raises:
            ValueError: frames in both forms or in none, or conditions of the wrong shape.
        """
        flags = self._flags(output_hidden_states, output_attentions)
        if (pixel_values_videos is None) == (features is None) or actions is None or states is None:
            raise ValueError("Give `actions`, `states` and one of `pixel_values_videos` and `features`.")
        recorded = {}
        if features is None:
            features, recorded = self._encode(pixel_values_videos, **flags)
        return VJEPA2ACModelOutput(
            last_hidden_state=features.flatten(1, 3),
            predictor_output=self.predictor(features, actions, states, extrinsics=extrinsics, **flags),
            **recorded,
        )

    def rollout(
        self,
        features: torch.Tensor,
        actions: torch.Tensor,
        states: torch.Tensor,
        extrinsics: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Follow a plan: predict frame after frame, each from the frames so far, predicted ones normalized.

        Blocks keep their keys and values, so that no step is computed twice.

        Args:
            features: (B, T₀, h, w, D), what `encode_frames` gives for the frames that are known.
            actions: (B, T, A) for those frames and the ones to come, T ≥ T₀.
            states: (B, T, A), likewise.
            extrinsics: (B, T, A - 1), likewise, with `config.use_extrinsics`.

        Returns:
            (B, T + 1, h, w, D): the known frames' features and, after them, the predicted ones.

        Raises:
            ValueError: fewer actions than frames, or conditions of the wrong shape.
        """
        if actions.shape[1] < features.shape[1]:
            raise ValueError(
                f"A rollout needs an action for every known frame: got {features.shape[1]} frames and "
                f"{actions.shape[1]} actions. Give fewer frames or more actions."
            )
        conditions = (actions, states, extrinsics)
        pasts, new = [Past() for _ in self.predictor.layer], features
        with float32_products(self.dtype, self.device):
            for known in range(features.shape[1], actions.shape[1] + 1):
                given = (each if each is None else each[:, known - new.shape[1] : known] for each in conditions)
                predicted = self.predictor(new, *given, pasts=pasts).last_hidden_state.unflatten(1, new.shape[1:4])
                pasts = [past.following for past in pasts]
                new = normalize(predicted[:, -1:])  # (B, 1, h, w, D)
                features = torch.cat([features, new], dim=1)
        return features

    def encode_frames(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Normalized features of frames, each encoded by itself.

        Args:
            pixel_values_videos: (B, T, C, H, W).

        Returns:
            (B, T, h, w, D).
        """
        with float32_products(self.dtype, self.device):
            return self._encode(pixel_values_videos)[0]

    def encode_clip(self, frames: torch.Tensor) -> torch.Tensor:
        """The feature map of frames that `encode_frames` encoded: these themselves.

        Args:
            frames: (B, T, h, w, D), those of a clip in order.

        Returns:
            (B, T, h, w, D).
        """
        return frames

    def get_feature_map(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """What `encode_frames` returns: normalized features, one step a frame.

        Args:
            pixel_values_videos: (B, T, C, H, W).

        Returns:
            (B, T, h, w, D).
        """
        return self.encode_frames(pixel_values_videos)

    def _encode(self, video: torch.Tensor, **flags: bool) -> tuple[torch.Tensor, dict[str, tuple | None]]:
        """Features (B, T, h, w, D), and what the encoder recorded, with frames put back into their videos.

        A frame is repeated to fill a tubelet (by the encoder, as any input of one frame).
        """
        if video.ndim != 5:
            raise ValueError(
                f"Expected `pixel_values_videos` of shape (batch, frames, channels, height, width), got "
                f"{tuple(video.shape)}."
            )
        frames = video.shape[:2]
        encoded = self.encoder(video.flatten(0, 1)[:, None], **flags)
        features = normalize(encoded.last_hidden_state).unflatten(1, encoded.grid[1:]).unflatten(0, frames)
        recorded: dict[str, tuple | None] = {"hidden_states": encoded.hidden_states, "attentions": encoded.attentions}
        if encoded.hidden_states is not None:
            recorded["hidden_states"] = tuple(
                state.unflatten(0, frames).flatten(1, 2) for state in encoded.hidden_states
            )
        if encoded.attentions is not None:
            recorded["attentions"] = tuple(each.unflatten(0, frames) for each in encoded.attentions)
        return features, recorded

    def get_input_embeddings(self) -> VJEPA2PatchEmbeddings3D:
        return self.encoder.embeddings.patch_embeddings


def normalize(features: torch.Tensor) -> torch.Tensor:
    """Layer norm without weights, with PyTorch's default epsilon, as the original puts around its predictor."""
    return nn.functional.layer_norm(features, features.shape[-1:])


__all__ = ["VJEPA2ACModel"]
