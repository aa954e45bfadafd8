"""The world model that moves a shape: a tiny V-JEPA 2-AC, which train_demo.py trains.

The world is a plain picture of one shape, 0.3 m wide, and a robot's pose is the shape's place in it: of the 7 numbers
of a state, x is meters right of the center and z meters above it. y is depth, which the picture doesn't show; the
angles and the gripper stay 0. An action changes x, y and z.

Training has two parts. First the encoder learns, with a linear layer that is thrown away, to tell at every patch where
the shape is. Then the predictor learns, by the losses of `VJEPA2ACForPreTraining`, what the frozen encoder will see
after random moves.

It is judged by planning: of problems with a start and a goal at least 0.3 of the picture's width apart, in how many
do a few moves end nearer to the goal than a tenth of the width? Moves drawn at random are the comparison.
"""

from dataclasses import dataclass, replace

import numpy as np
import shapes
import torch
import training
from torch import nn

from vidformers import VJEPA2ACForPreTraining, VJEPA2ACModel, VJEPA2Config, VJEPA2VideoProcessor
from vidformers.models.vjepa2 import PLAN_SETTINGS, compute_new_pose, receding_horizon
from vidformers.models.vjepa2.modeling_vjepa2_ac import normalize
from vidformers.models.vjepa2.planning_vjepa2 import VJEPA2Course


METERS = 0.3
"""Width of the picture."""
REACH = 0.1
"""Starts and goals have x and z between minus this and this, in meters: the whole shape is seen."""
LEAST_DISTANCE, NEAR = 0.3, 0.1
"""Of the picture's width: between start and goal, and of what counts as reached."""
MOVES = 4
PLAN = {**PLAN_SETTINGS["world_model"], "rollout": 1, "samples": 25, "topk": 5, "cem_steps": 3, "maxnorm": 0.075}
PLAN |= {"axis": {1: 0.0, 3: 0.0}}
"""How the toy plans: one move ahead, of few samples, without depth and gripper."""


@dataclass(frozen=True)
class Settings(training.Settings):
    """What a training run depends on. Sizes are in pixels, frames and channels."""

    steps: int = 800
    encoder_steps: int = 600
    batch_size: int = 16
    learning_rate: float = 4e-3
    evaluate_every: int = 50
    muon: bool = True
    frames_per_clip: int = 3
    crop_size: int = 64
    patch_size: int = 16
    hidden_size: int = 64
    num_hidden_layers: int = 3
    num_attention_heads: int = 8
    mlp_ratio: float = 2.0
    pred_hidden_size: int = 64
    pred_num_hidden_layers: int = 2
    pred_num_attention_heads: int = 4
    pred_mlp_ratio: float = 2.0
    problems: int = 50


CONFIG_FIELDS = [
    name for name in Settings.__dataclass_fields__ if hasattr(VJEPA2Config, name) and name != "num_frames"
]


# ------------------------------------------------------------------------------------------------------- the world


@dataclass(frozen=True)
class Look:
    """What the shape of a problem looks like, and what is behind it; the radius is a share of the picture's width."""

    shape: str
    color: np.ndarray
    background: np.ndarray
    radius: float
    tilt: float


def draw_look(rng: np.random.Generator) -> Look:
    """A random one."""
    color = np.array(shapes.COLORS[rng.choice(list(shapes.COLORS))]) + rng.uniform(-0.07, 0.07, 3)
    return Look(
        shape=str(rng.choice(shapes.SHAPES)),
        color=color.clip(0, 1),
        background=rng.uniform(0, 0.35, 3),
        radius=rng.uniform(0.11, 0.15),
        tilt=rng.uniform(-0.15, 0.15),
    )


def draw(look: Look, states: torch.Tensor, side: int) -> np.ndarray:
    """Pictures (T, side, side, 3) uint8 of the world in states (T, 7)."""
    right, _, up = states[:, :3].numpy().T[..., None, None] / METERS  # (T, 1, 1)
    y, x = (np.mgrid[:side, :side].astype(np.float32) + 0.5) / side - 0.5
    radius = look.radius * side
    coverage = shapes.cover(look.shape, (x - right) / look.radius, (y + up) / look.radius, radius, look.tilt)
    image = look.background + coverage * (look.color - look.background).astype(np.float32)
    return (255 * image).round().astype(np.uint8)


def draw_pixels(looks: list[Look], states: torch.Tensor, processor: VJEPA2VideoProcessor) -> torch.Tensor:
    """The model's input (B, T, 3, side, side) for states (B, T, 7)."""
    side = processor.crop_size["height"]
    clips = [draw(look, course, side) for look, course in zip(looks, states, strict=True)]
    return processor(clips, return_tensors="pt")["pixel_values_videos"]


def draw_places(count: int, reach: float, rng: np.random.Generator) -> torch.Tensor:
    """States (count, 7) with x, y and z between minus `reach` and `reach`."""
    places = torch.zeros(count, 7)
    places[:, :3] = torch.from_numpy(rng.uniform(-reach, reach, (count, 3)))
    return places


def distance(states: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """How far places are apart in the picture, as a share of its width."""
    return (states - goals)[..., [0, 2]].norm(dim=-1) / METERS


# ---------------------------------------------------------------------------------------------------- the judgment


@dataclass(frozen=True)
class Problems:
    """Where shapes are and where they are to go: states (B, 7)."""

    looks: list[Look]
    starts: torch.Tensor
    goals: torch.Tensor


def draw_problems(count: int, seed: int) -> Problems:
    """Random ones whose start and goal are far enough apart."""
    rng = np.random.default_rng([seed, 1])
    places = draw_places(20 * count, REACH, rng).view(-1, 2, 7)
    starts, goals = places[distance(*places.unbind(1)) >= LEAST_DISTANCE][:count].unbind(1)
    return Problems([draw_look(rng) for _ in range(count)], starts, goals)


def solve(model: VJEPA2ACModel, processor: VJEPA2VideoProcessor, problems: Problems, seed: int) -> VJEPA2Course:
    """Plan a move, do it, look and plan anew, `MOVES` times, for all problems at once."""

    def see(states: torch.Tensor) -> torch.Tensor:
        return draw_pixels(problems.looks, states[:, None], processor)[:, 0]

    def act(action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal state
        state = compute_new_pose(state, action)
        return see(state), state

    state, generator = problems.starts, torch.Generator().manual_seed(seed)
    return receding_horizon(
        model, see(state), see(problems.goals), state, act, moves=MOVES, **PLAN, generator=generator
    )


def move_at_random(problems: Problems, seed: int) -> torch.Tensor:
    """States (B, MOVES + 1, 7) of as many moves that a plan could contain."""
    rng, states = np.random.default_rng([seed, 2]), [problems.starts]
    for _ in range(MOVES):
        states.append(compute_new_pose(states[-1], draw_places(len(problems.starts), PLAN["maxnorm"], rng)))
    return torch.stack(states, dim=1)


def share_near(states: torch.Tensor, problems: Problems) -> float:
    """In how many problems (as a share) the last of states (B, T, 7) is near the goal."""
    return (distance(states[:, -1], problems.goals) < NEAR).float().mean().item()


# ---------------------------------------------------------------------------------------------------- the training


class PlaceReader(nn.Module):
    """The encoder with the linear layer that it learns with: every patch tells how far from it the shape is.

    Patches know of each other only where they are to each other (rotary positions), not where in the picture.
    """

    def __init__(self, model: VJEPA2ACModel):
        super().__init__()
        self.encoder = model.encoder
        self.place = nn.Linear(model.config.hidden_size, 2)
        side = model.config.crop_size // model.config.patch_size
        steps = (torch.arange(side) + 0.5) / side - 0.5
        up, right = torch.meshgrid(-steps, steps, indexing="ij")
        self.register_buffer("centers", torch.stack([right, up], dim=-1).flatten(0, 1))  # (h·w, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Places (B, h·w, 2) of the shapes in pictures (B, 3, H, W) that patches tell: shares of the width."""
        return self.place(normalize(self.encoder(pixels[:, None]).last_hidden_state)) + self.centers


def build_model(settings: Settings) -> VJEPA2ACForPreTraining:
    """The model with random weights that make the first steps count.

    Queries and keys of the encoder have large biases: rotated, they let each head look in a direction of its own.
    Actions and states, which are small numbers, weigh as much as features.
    """
    fields = {name: getattr(settings, name) for name in CONFIG_FIELDS}
    model = VJEPA2ACForPreTraining(VJEPA2Config(**fields, initializer_range=0.05))
    with torch.no_grad():
        for layer in model.encoder.layer:
            for projection in (layer.attention.query, layer.attention.key):
                projection.bias.normal_(std=2)
        for embedding in (model.predictor.embeddings.action_encoder, model.predictor.embeddings.state_encoder):
            embedding.weight.mul_(1 / REACH)
    return model


def build_processor(settings: Settings) -> VJEPA2VideoProcessor:
    """What makes model input of pictures: nothing is cut off them."""
    side = settings.crop_size
    return VJEPA2VideoProcessor(crop_size=side, size={"shortest_edge": side})


def place_loss(
    reader: PlaceReader, processor: VJEPA2VideoProcessor, rng: np.random.Generator, settings: Settings
) -> torch.Tensor:
    """How far patches of random pictures misjudge x and z, as a share of the width."""
    states = draw_places(4 * settings.batch_size, METERS / 2, rng)
    pixels = draw_pixels([draw_look(rng) for _ in states], states[:, None], processor)
    return (reader(pixels[:, 0]) - states[:, None, [0, 2]] / METERS).abs().mean()


def move_loss(
    model: VJEPA2ACForPreTraining, processor: VJEPA2VideoProcessor, rng: np.random.Generator, settings: Settings
) -> torch.Tensor:
    """The loss of random moves of random shapes."""
    states = [draw_places(settings.batch_size, METERS / 2, rng)]
    actions = [draw_places(settings.batch_size, PLAN["maxnorm"], rng) for _ in range(settings.frames_per_clip - 1)]
    for action in actions:
        states.append(compute_new_pose(states[-1], action))
    looks, states = [draw_look(rng) for _ in range(settings.batch_size)], torch.stack(states, dim=1)
    return model(draw_pixels(looks, states, processor), torch.stack(actions, dim=1), states).loss


def train(settings: Settings) -> tuple[VJEPA2ACModel, VJEPA2VideoProcessor, dict]:
    """Train; returns the model, its processor, and the record that becomes `training.json`."""
    torch.manual_seed(settings.seed)
    model, processor = build_model(settings), build_processor(settings)
    reader = PlaceReader(model).requires_grad_(True)
    encoder_record = training.fit(
        reader,
        replace(settings, steps=settings.encoder_steps),
        batch_loss=lambda rng: place_loss(reader, processor, rng, settings),
        evaluate=dict,
    )
    model.encoder.requires_grad_(False)
    record = training.fit(
        model,
        settings,
        batch_loss=lambda rng: move_loss(model, processor, rng, settings),
        evaluate=dict,
    )
    for name in ("training_seconds", "processor_seconds"):
        record[name] += encoder_record[name]
    record["encoder_curve"] = encoder_record["curve"]
    world = VJEPA2ACModel(model.config).eval()
    world.load_state_dict(model.state_dict())
    problems = draw_problems(settings.problems, settings.seed)
    planned, random = solve(world, processor, problems, settings.seed), move_at_random(problems, settings.seed)
    record |= {"problems": settings.problems, "solved": share_near(planned.states, problems)}
    return world, processor, record | {"solved_by_random_moves": share_near(random, problems)}


def describe(record: dict) -> str:
    """The result in a line."""
    return (
        f"plans solve {record['solved']:.0%} of {record['problems']} problems, random moves "
        f"{record['solved_by_random_moves']:.0%}"
    )
