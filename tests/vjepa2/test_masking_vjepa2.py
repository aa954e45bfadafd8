"""Masks of V-JEPA 2's pre-training: the original's draws, and what holds on any grid."""

import pytest
import torch

from tests.goldens_of_training import case, cases
from vidformers.models.vjepa2 import MultiblockMaskSampler, VJEPA2MaskCollator, context_distances


CONFIG = (
    "spatial_scale temporal_scale aspect_ratio num_blocks max_temporal_keep max_keep full_complement "
    "pred_full_complement inv_block"
).split()


@pytest.mark.parametrize("name", cases("a1_masks"))
def test_draws_of_the_original(name):
    given = case(name)
    for number, setting in enumerate(given.settings):
        sides = zip(setting["crop_size"], setting["patch"], strict=True)
        grid = (setting["num_frames"] // setting["tubelet"], *(size // patch for size, patch in sides))
        sampler = MultiblockMaskSampler(grid, **{key: setting[key] for key in CONFIG})
        torch.manual_seed(setting["torch_seed"])
        for call in range(3):
            context, target = sampler(setting["batch"])
            assert context.dtype == target.dtype == torch.int64
            assert torch.equal(context, given.outputs[f"s{number}_call{call}_enc"].long()), (number, call)
            assert torch.equal(target, given.outputs[f"s{number}_call{call}_pred"].long()), (number, call)
        assert torch.equal(torch.rand(1), given.outputs[f"s{number}_next"])


@pytest.mark.parametrize("name", cases("a2_collator"))
def test_batches_of_the_original(name):
    given = case(name)
    sizes = given.hyperparameters
    collator = VJEPA2MaskCollator(
        sizes["masks"],
        sizes["dataset_fpcs"],
        **{key: sizes[key] for key in ("crop_size", "patch_size", "tubelet_size")},
    )
    collator.step = sizes["steps_skipped"]
    torch.manual_seed(sizes["torch_seed"])
    samples = [
        {"pixel_values_videos": torch.zeros(frames, 3, 2, 2), "labels": number}
        for number, frames in enumerate(given.call["batch_frames"])
    ]
    for call in range(2):
        for group, batch in enumerate(collator(samples)):
            start = f"call{call}_group{group}"
            assert torch.equal(batch["labels"], given.outputs[f"{start}_labels"])
            for number in range(len(sizes["masks"])):
                for kind, ours in (("enc", "context_mask"), ("pred", "target_mask")):
                    assert torch.equal(batch[ours][number], given.outputs[f"{start}_mask{number}_{kind}"].long())
        assert f"call{call}_group{group + 1}_labels" not in given.outputs


@pytest.mark.parametrize("name", cases("a3_context_distance"))
def test_distances_of_the_original(name):
    given = case(name)
    for number, setting in enumerate(given.settings):
        grid = (setting["T"], setting["grid_size"], setting["grid_size"])
        masks = (given.inputs[f"d{number}_{kind}"] for kind in ("enc", "pred"))
        actual = context_distances(*masks, grid, offset=setting["offset_context_loss"])
        torch.testing.assert_close(actual, given.outputs[f"d{number}"], rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------ what always holds


@pytest.mark.parametrize("grid", [(1, 2, 2), (1, 5, 3), (3, 2, 7), (8, 16, 16)])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("kind", ["plain", "full_complement", "pred_full_complement"])
def test_masks_are_apart_on_any_grid(grid, batch, kind):
    options = {} if kind == "plain" else {kind: True}
    sampler = MultiblockMaskSampler(grid, (0.3, 0.5), (1.0, 1.0), (0.75, 1.5), 1, **options)
    for _ in range(3):
        context, target = sampler(batch)
        total = grid[0] * grid[1] * grid[2]
        for row in range(batch):
            numbers = context[row].tolist() + target[row].tolist()
            assert len(set(numbers)) == len(numbers)
            assert set(numbers) <= set(range(total))
            assert len(numbers) == total or kind == "plain"
        assert (context.diff(dim=1) > 0).all() and (target.diff(dim=1) > 0).all()


def test_a_single_token_is_enough():
    context, target = MultiblockMaskSampler((1, 1, 2), (0.5, 0.5), aspect_ratio=(1.0, 1.0))(3)
    assert context.shape == target.shape == (3, 1)


def test_sizes_follow_the_step():
    first = MultiblockMaskSampler((4, 8, 8), (0.2, 0.8), (0.3, 1.0), (0.3, 3.0))
    later = MultiblockMaskSampler((4, 8, 8), (0.2, 0.8), (0.3, 1.0), (0.3, 3.0))
    for _ in range(3):
        first(1)
    later.step = first.step
    for _ in range(3):
        torch.manual_seed(0)
        expected = first(2)
        torch.manual_seed(0)
        assert all(map(torch.equal, expected, later(2)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spatial_scale": (1.0, 1.0), "aspect_ratio": (1.0, 1.0)}, "leave no context"),
        ({"spatial_scale": (0.01, 0.01)}, "no target"),
        ({"spatial_scale": (0.0, 0.5)}, "`spatial_scale`"),
        ({"temporal_scale": (0.5, 1.5)}, "`temporal_scale`"),
        ({"aspect_ratio": (2.0, 1.0)}, "`aspect_ratio`"),
        ({"max_keep": 0}, "`max_keep`"),
        ({"max_temporal_keep": 0.0}, "`max_temporal_keep`"),
    ],
)
def test_masks_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        MultiblockMaskSampler((2, 4, 4), **fields)(2)


def test_an_absent_length_does_not_go_on():
    collator = VJEPA2MaskCollator(
        [{"spatial_scale": (0.3, 0.6)}], [4, 2], crop_size=(16, 24), patch_size=8, tubelet_size=2
    )
    (batch,) = collator([{"pixel_values_videos": torch.zeros(2, 3, 16, 24)}] * 2)
    assert batch["pixel_values_videos"].shape == (2, 2, 3, 16, 24)
    assert [samplers[0].step for samplers in collator.samplers.values()] == [0, 1]
    collator.step = 7
    assert [samplers[0].step for samplers in collator.samplers.values()] == [7, 7]
    with pytest.raises(ValueError, match="6 frames.*4, 2"):
        collator([{"pixel_values_videos": torch.zeros(6, 3, 16, 24)}])


@pytest.mark.parametrize("grid", [(1, 1, 4), (3, 2, 5), (2, 20, 33)])
@pytest.mark.parametrize("offset", [False, True])
def test_distances_on_any_grid(grid, offset):
    generator = torch.Generator().manual_seed(1)
    count = grid[0] * grid[1] * grid[2]
    order = torch.stack([torch.randperm(count, generator=generator) for _ in range(2)])
    context, target = order[:, :1], order[:, 1:4]
    actual = context_distances(context, target, grid, offset)
    places = torch.stack(torch.meshgrid(*map(torch.arange, grid), indexing="ij"), -1).flatten(0, 2).double()
    for row in range(2):
        nearest = (places[context[row]][:, None] - places[target[row]]).norm(dim=-1).amin(-1)
        expected = (nearest / (max(1, min(grid[1:]) // 16) if offset else 1)).sqrt()
        torch.testing.assert_close(actual[row], expected.float())
