"""How V-JEPA 2 and 2.1 were pre-trained.

Source: facebookresearch/vjepa2, `configs/train` at c2963a47 and `configs/train_2_1` at 204698b4. An epoch is 300 steps
there, which marks checkpoints and nothing else; all schedules are stretched by 1.25, so that trainings end at four
fifths of them.
"""

from dataclasses import replace

from ..records import ImageRecipe, Recipe
from .presets import VJEPA2_1_LEVELS, VJEPA2_SIZES


EPOCH = 300
DATA = {"Kinetics-710": 0.335, "Something-Something v2": 0.1, "HowTo100M": 0.565}
BLOCKS = {"temporal_scale": (1.0, 1.0), "aspect_ratio": (0.75, 1.5), "max_temporal_keep": 1.0}
MASKS = (
    {"num_blocks": 8, "spatial_scale": (0.15, 0.15), **BLOCKS},
    {"num_blocks": 2, "spatial_scale": (0.7, 0.7), **BLOCKS},
)
IMAGES = ImageRecipe(
    share=0.5,
    batch_size=4608,
    crop_size=256,
    masks=({"num_blocks": 10, "spatial_scale": (0.15, 0.15), **BLOCKS},),
    context_loss_weight=0.5,
)
PRETRAINING = Recipe(
    source="configs/train/vitg16/pretrain-256px-16f.yaml at c2963a47",
    num_frames=16,
    crop_size=256,
    batch_size=3072,
    steps=800 * EPOCH,
    start_learning_rate=1e-4,
    learning_rate=5.25e-4,
    final_learning_rate=5.25e-4,
    warmup_steps=40 * EPOCH,
    schedule_scale=1.25,
    masks=MASKS,
    fps=4,
    resize_aspect_ratio=(0.75, 1.35),
    data=DATA,
)
COOLDOWN = replace(
    PRETRAINING,
    num_frames=64,
    steps=40 * EPOCH,
    start_learning_rate=0.0,
    final_learning_rate=1e-6,
    schedule="linear_decay",
    warmup_steps=0,
    notes=(
        "The schedule goes on after the training, so that the published learning rate ended at 1.058e-4; with "
        "`schedule_scale=1` it reaches the final one.",
    ),
)
IN_WARMUP = (
    "The file has 10 epochs, 3,000 steps, which end inside the warm-up of 12,000: they look left over from a test. "
    "The recipe of the giant has 240,000 steps.",
)
FEW_STEPS = (
    "The file has 4 epochs of 30 steps, 120 in all: they look left over from a test. The cooldown to 384 pixels has "
    "12,000 steps.",
)
ON_IMAGES = "The original makes half of its batches of images, those of ImageNet-1k; `--images` names yours."
NO_WIDTH = (
    "The original's code has no width for a base model, so that the file fails in the first step; the published B and "
    "L were distilled, by code that is not published."
)
AT_256 = "The file has crops of 256 pixels, the published models 384."


def _config(size: str) -> dict:
    """A new model of V-JEPA 2."""
    return {**VJEPA2_SIZES[size], "pred_num_mask_tokens": 6}


def _config_2_1(size: str) -> dict:
    """A new model of V-JEPA 2.1."""
    depth = VJEPA2_SIZES[size]["num_hidden_layers"]
    return {
        **_config(size),
        "pred_num_hidden_layers": 12 if size == "vitb" else 24,
        "use_rope_interleave": True,
        "interpolate_rope": True,
        "pred_interpolate_rope": True,
        "use_modality_embeddings": True,
        "use_image_patch_embedder": True,
        "hierarchical_layers": VJEPA2_1_LEVELS[depth],
        "num_distillation_outputs": 4,
        "use_context_projection": True,
    }


def _recipes() -> dict[str, Recipe]:
    recipes = {}
    for size, file in (("vitl", "vitl16"), ("vith", "vith16")):
        source = f"configs/train/{file}/{{}} at c2963a47"
        recipes[f"vjepa2-{size}-cooldown"] = replace(COOLDOWN, source=source.format("cooldown-256px-64f.yaml"))
        recipes[f"vjepa2-{size}-pretrain"] = replace(
            PRETRAINING,
            source=source.format("pretrain-256px-16f.yaml"),
            config=_config(size),
            steps=10 * EPOCH,
            notes=IN_WARMUP,
        )
    recipes["vjepa2-vitg-pretrain"] = replace(PRETRAINING, config=_config("vitg"))
    of_giant = replace(COOLDOWN, source="configs/train/vitg16/cooldown-256px-64f.yaml at c2963a47")
    recipes["vjepa2-vitg-cooldown-256"] = replace(of_giant, steps=4 * 30, notes=FEW_STEPS)
    source = "configs/train/vitg16/cooldown-384px-64f.yaml at c2963a47"
    recipes["vjepa2-vitg-cooldown-384"] = replace(of_giant, source=source, crop_size=384)
    for size in ("vitb", "vitl", "vitg", "vitG"):
        why = (NO_WIDTH,) if size in ("vitb", "vitl") else ()
        source = f"configs/train_2_1 at 204698b4, {size}16"
        recipes[f"vjepa2.1-{size}-pretrain"] = replace(
            PRETRAINING,
            source=source,
            config=_config_2_1(size),
            steps=1000 * EPOCH,
            learning_rate=6e-4,
            final_learning_rate=6e-4,
            loss={"weight_distance_loss": True},
            context_loss_weight=0.5,
            context_loss_steps=(15000, 30000),
            images=IMAGES,
            notes=(ON_IMAGES, *why),
        )
        recipes[f"vjepa2.1-{size}-cooldown"] = replace(
            COOLDOWN,
            source=source,
            learning_rate=6e-4,
            loss={"weight_distance_loss": False},
            context_loss_weight=0.5,
            images=IMAGES,
            notes=(*COOLDOWN.notes, ON_IMAGES, AT_256),
        )
    return recipes


RECIPES = _recipes()
