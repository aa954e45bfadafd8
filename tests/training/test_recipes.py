"""Recipes: plain data that give models of full size, masks, and the rates that the originals recorded."""

from dataclasses import replace

import pytest
import torch

from tests.goldens_of_training import case, cases
from vidformers.commands.pretrain import change, new_model, recipes
from vidformers.training.batches import seeded
from vidformers.training.pretraining import Shares, rates_at, share_out


RECIPES = recipes()
NEW = [name for name, (_, recipe) in RECIPES.items() if recipe.config]
# Millions of parameters of an encoder, as the papers round them.
SIZES = {"vitb": 86, "vitl": 304, "vith": 632, "vitg": 1012, "vitG": 1842}


@pytest.mark.parametrize("name", NEW)
def test_new_models_of_full_size(name):
    family, recipe = RECIPES[name]
    with torch.device("meta"):
        model = new_model(family, recipe)
    assert model.base_model.frames_per_clip == recipe.num_frames
    if family.model_type == "vjepa2":
        millions = sum(parameter.numel() for parameter in model.teacher.parameters()) / 1e6
        assert millions == pytest.approx(SIZES[name.split("-")[1]], rel=0.02)
        assert (recipe.context_loss_weight is not None) == model.config.use_context_projection
    groups = model.parameter_groups(recipe.weight_decay)
    assert {group["weight_decay"] for group in groups} == {0.0, recipe.weight_decay}


@pytest.mark.parametrize("name", RECIPES)
def test_masks(name):
    family, recipe = RECIPES[name]
    small = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
    if family.model_type == "vjepa2":
        small |= {"pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    model = new_model(family, replace(recipe, config=small))
    samples = [{"pixel_values_videos": torch.zeros(recipe.num_frames, 3, 1, 1)}] * 2
    with seeded(0):
        drawn = model.mask_collator(recipe.masks, recipe.num_frames, recipe.crop_size).model_inputs(samples)
    tokens = (recipe.num_frames // 2) * (recipe.crop_size // 16) ** 2
    if family.model_type == "vjepa2":
        for context, target in zip(drawn["context_mask"], drawn["target_mask"], strict=True):
            assert 0 < context.shape[1] < tokens / 2 < target.shape[1] < tokens
        assert len(drawn["context_mask"]) == 2
    else:
        assert drawn["bool_masked_pos"].float().mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("name", cases("a5_train") + cases("a6_train"))
def test_rates_of_the_original(name):
    given = case(name).hyperparameters
    sizes, (start, final) = given["optimization"], given["optimization"]["ema"]
    recipe = replace(
        RECIPES["vjepa2-vitg-pretrain"][1],
        steps=given["steps"],
        schedule="linear_decay" if sizes.get("is_anneal") else "warmup_cosine",
        schedule_scale=sizes["ipe_scale"],
        learning_rate=sizes["lr"],
        start_learning_rate=sizes.get("start_lr", 0.0),
        final_learning_rate=sizes["final_lr"],
        warmup_steps=int(sizes.get("warmup", 0)),
        weight_decay=sizes["weight_decay"],
        final_weight_decay=sizes["final_weight_decay"],
        momentum=start,
        final_momentum=final,
    )
    for step, groups in enumerate(case(name).lr_wd_per_group_per_step):
        rates = rates_at(recipe, step)
        assert [rate for rate, _ in groups] == pytest.approx([rates["learning_rate"]] * len(groups))
        assert max(decay for _, decay in groups) == pytest.approx(rates["weight_decay"])
        assert rates["momentum"] == pytest.approx(
            start + step * (final - start) / (sizes["ipe_scale"] * given["steps"])
        )


def test_published_rates():
    """What the facts of the cooldown are known by: its schedule ends after the training."""
    recipe = RECIPES["vjepa2-vitl-cooldown"][1]
    assert rates_at(recipe, recipe.steps - 1)["learning_rate"] == pytest.approx(1.058e-4, rel=1e-3)
    assert rates_at(replace(recipe, schedule_scale=1.0), recipe.steps - 1)["learning_rate"] == pytest.approx(1e-6)
    recipe = RECIPES["vjepa2.1-vitg-pretrain"][1]
    weights = [rates_at(recipe, step)["context_loss_weight"] for step in (0, 15000, 22500, 30000, 200000)]
    assert weights == pytest.approx([0, 0, 0.25, 0.5, 0.5])
    assert rates_at(RECIPES["vjepa2.1-vitg-cooldown"][1], 0)["context_loss_weight"] == 0.5
    assert "context_loss_weight" not in rates_at(RECIPES["vjepa2-vitg-pretrain"][1], 0)
    images = replace(recipe.images, context_loss_weight=0.7)
    rates = rates_at(replace(recipe, images=images), 22500)
    assert (rates["context_loss_weight"], rates["image_context_loss_weight"]) == pytest.approx((0.25, 0.35))
    assert "image_context_loss_weight" not in rates_at(replace(recipe, images=None), 0)


def test_changes():
    recipe = RECIPES["vjepa2-vitg-pretrain"][1]
    changed = change(recipe, {"learning_rate": 1e-4, "momentum": 0.999, "frame_step": 2, "betas": [0.9, 0.95]})
    assert (changed.final_learning_rate, changed.final_momentum) == (1e-4, 0.999)
    assert (changed.fps, changed.frame_step, changed.betas) == (None, 2, (0.9, 0.95))
    assert change(recipe, {"momentum": 0.99, "final_momentum": 1.0}).final_momentum == 1.0
    cooldown = RECIPES["vjepa2-vitl-cooldown"][1]
    assert change(cooldown, {"learning_rate": 1e-4}).final_learning_rate == cooldown.final_learning_rate
    stable = {
        "schedule": "warmup_stable_decay",
        "steps": 10,
        "warmup_steps": 2,
        "anneal_steps": 4,
        "schedule_scale": 1,
    }
    rates = [rates_at(change(cooldown, stable), step)["learning_rate"] for step in range(10)]
    assert rates == sorted(rates[:2]) + rates[2:6] + sorted(rates[6:], reverse=True) and len(set(rates[1:6])) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 1.1}, "`momentum`.*from 0 to 1, got 1.1"),
        ({"steps": 0}, "`steps` above 0, got 0"),
        ({"learning_rate": -1.0}, "`learning_rate` above 0"),
        ({"fps": None}, "either `fps` or `frame_step`"),
        ({"schedule": "step"}, "`schedule`.*got 'step'"),
        ({"images": {"share": 1.0}}, "`share` of images above 0 and below 1, got 1.0"),
        ({"images": {"crop_size": 0}}, "`crop_size` of images above 0, got 0"),
        ({"images": {"shares": 0.5}}, "`images` as a mapping with some of share, batch_size.*got {'shares': 0.5}"),
    ],
)
def test_recipes_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        change(RECIPES["vjepa2.1-vitg-pretrain"][1], changes)


def test_how_the_clips_of_a_step_are_shared_out():
    recipe = replace(RECIPES["vjepa2-vitg-pretrain"][1], batch_size=24)
    assert share_out(recipe, None, 2) == Shares(1, 2, 12) and share_out(recipe, 4, 2) == Shares(3, 6, 4)
    with pytest.raises(ValueError, match="multiple of the clips that 5 processes"):
        share_out(recipe, None, 5)


@pytest.mark.parametrize(("size", "processes", "clips", "images"), [("vitb", 64, 96, 144), ("vitG", 256, 24, 36)])
def test_images_of_the_originals_processes(size, processes, clips, images):
    recipe = RECIPES[f"vjepa2.1-{size}-pretrain"][1]
    half = processes // 2
    assert share_out(recipe, None, processes) == share_out(recipe, clips, processes)
    assert share_out(recipe, None, processes) == Shares(1, half, clips, half, images)


def test_how_images_are_shared_out():
    recipe = change(RECIPES["vjepa2.1-vitg-pretrain"][1], {"batch_size": 24})
    assert recipe.images.batch_size == 36
    assert share_out(recipe, None, 1) == Shares(2, 1, 24, 1, 36)
    assert share_out(recipe, 4, 1) == Shares(12, 6, 4, 6, 6)
    assert share_out(recipe, 8, 2) == Shares(3, 3, 8, 3, 12)
    assert share_out(recipe, None, 2) == Shares(1, 1, 24, 1, 36)
    assert share_out(recipe, None, 2, sharded=True) == Shares(2, 2, 12, 2, 18)  # two processes, of one kind at a time
    with pytest.raises(ValueError, match="gives 3 of images.*in multiples of the 2 processes that share"):
        share_out(recipe, 8, 2, sharded=True)
    third = change(recipe, {"images": {"share": 0.3, "batch_size": 8}})
    assert share_out(third, None, 1) == Shares(4, 3, 8, 1, 8) and share_out(third, 4, 1) == Shares(8, 6, 4, 2, 4)
    with pytest.raises(ValueError, match="share of 0.3 gives 0 of images"):
        share_out(third, 24, 1)
    with pytest.raises(ValueError, match="that 3 processes take at once .25 each, and images besides., got 24"):
        share_out(recipe, 25, 3)
    with pytest.raises(ValueError, match="gives 2 of images, among which its 7 images cannot be shared out"):
        share_out(change(third, {"images": {"batch_size": 7}}), 4, 1)
