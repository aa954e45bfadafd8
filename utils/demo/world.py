"""The part of the demo that plans: the toy world model moves a shape to where a picture shows it."""

from pathlib import Path

import numpy as np
import shapes_world
import torch
from figures import draw_figure
from PIL import Image, ImageDraw
from rich.console import Console
from shapes_world import METERS, MOVES, NEAR, PLAN, Problems
from transformers import AutoVideoProcessor

import vidformers
from vidformers import VJEPA2ACModel, VJEPA2VideoProcessor
from vidformers.models.vjepa2 import energy_landscape
from vidformers.models.vjepa2.planning_vjepa2 import VJEPA2Course


SHAPES_WORLD = Path(vidformers.__file__).parent / "demo_models/shapes_world"
NUM_PROBLEMS, SEED, SHOWN = 50, 1, 0
TILE, GRID = 160, 9
"""Pixels of a picture's side, and moves along each axis of a landscape."""
GOAL, LEAST = "#ff5050", "white"


def mark(picture: Image.Image, right: float, up: float, color: str) -> None:
    """A ring at a place, which is a share of the picture's side from its center."""
    draw, x, y = ImageDraw.Draw(picture), (0.5 + right) * TILE, (0.5 - up) * TILE
    for radius, shade, width in ((7, "black", 4), (6, color, 2)):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=shade, width=width)


def draw_frame(frame: np.ndarray, goal: torch.Tensor) -> np.ndarray:
    """A frame, enlarged, with a ring at the goal's place (7,)."""
    picture = Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.NEAREST)
    mark(picture, goal[0] / METERS, goal[2] / METERS, GOAL)
    return np.asarray(picture)


def draw_landscape(energies: np.ndarray, wanted: torch.Tensor) -> np.ndarray:
    """Energies (n, n) by change of x and z, low ones dark; rings at the least and at the move (7,) to the goal."""
    scaled = (energies - energies.min()) / (energies.max() - energies.min())
    gray = Image.fromarray((255 * scaled.T[::-1]).round().astype(np.uint8))  # z upwards
    picture = gray.resize((TILE, TILE), Image.Resampling.NEAREST).convert("RGB")
    least = np.stack(np.unravel_index(energies.argmin(), energies.shape))
    mark(picture, *((least + 0.5) / GRID - 0.5), LEAST)
    # The outermost cells' centers stand for the greatest moves; a goal beyond them is marked at the border.
    reachable = (wanted[[0, 2]] / PLAN["maxnorm"]).clamp(-1, 1) / 2
    mark(picture, *(reachable * (GRID - 1) / GRID).tolist(), GOAL)
    return np.asarray(picture)


def draw_course(
    model: VJEPA2ACModel, processor: VJEPA2VideoProcessor, problems: Problems, course: VJEPA2Course, path: Path
) -> Path:
    """A PNG of one problem: what is seen after each move, and the landscape of the next one."""
    look, states, goal = problems.looks[SHOWN], course.states[SHOWN], problems.goals[SHOWN]
    wanted = shapes_world.draw_pixels([look], goal[None, None], processor)[:, 0]
    landscapes = []
    for index in range(MOVES):
        frame, state = course.frames[SHOWN : SHOWN + 1, index], states[index : index + 1]
        found = energy_landscape(model, frame, wanted, state, nsamples=GRID, grid_size=PLAN["maxnorm"])
        landscapes.append(draw_landscape(found.heatmap[0].numpy(), goal - states[index]))
    frames = shapes_world.draw(look, torch.cat([states, goal[None]]), processor.crop_size["height"])
    rows = [
        ("what is seen,\nand a ring at\nthe goal", [draw_frame(frame, goal) for frame in frames]),
        ("energy of the\nnext move: dark\nis near the goal,\nwhite ring: least,\nred: true move", landscapes),
    ]
    left = shapes_world.distance(states[-1], goal).item()
    return draw_figure(
        f"A {look.shape} is moved to where the goal shows it: {MOVES} moves, planned one by one",
        f"tiny V-JEPA 2-AC (shapes_world); the last move ends {left:.1%} of the picture's width from the goal",
        ["start", *(f"after move {index + 1}" for index in range(MOVES)), "goal"],
        rows,
        path,
        tile=TILE,
    )


def plan_moves(console: Console, out: Path) -> None:
    """Plan from start to goal in many problems at once, draw one of them, and say how often it went well."""
    processor = AutoVideoProcessor.from_pretrained(SHAPES_WORLD)
    model = VJEPA2ACModel.from_pretrained(SHAPES_WORLD).eval()
    problems = shapes_world.draw_problems(NUM_PROBLEMS, SEED)
    course = shapes_world.solve(model, processor, problems, SEED)
    planned = shapes_world.share_near(course.states, problems)
    random = shapes_world.share_near(shapes_world.move_at_random(problems, SEED), problems)
    figure = draw_course(model, processor, problems, course, out / "plan.png")
    console.print(f"[green]✓[/green] wrote {figure}: the energy of moves, and a plan from start to goal")
    console.print(
        f"  of {NUM_PROBLEMS} random problems, {planned:.0%} end nearer to the goal than {NEAR:.0%} of the picture's "
        f"width after {MOVES} planned moves, {random:.0%} after random ones"
    )
