"""How VideoMAE was pre-trained.

Source: MCG-NJU/VideoMAE at 14ef8d85, `run_mae_pretraining.py` and
`scripts/kinetics/videomae_vit_base_patch16_224_tubemasking_ratio_0.9_epoch_1600/pretrain.sh`.
"""

from ..records import Recipe
from .presets import PRESETS


EPOCH = 117
"""Steps of an epoch of 240,000 videos of Kinetics-400."""

RECIPES = {
    "videomae-base-k400-1600e": Recipe(
        source="scripts/kinetics/videomae_vit_base_patch16_224_tubemasking_ratio_0.9_epoch_1600/pretrain.sh",
        config=dict(PRESETS["videomae-base-k400-1600e"].config),
        num_frames=16,
        crop_size=224,
        batch_size=2048,
        steps=1601 * EPOCH,
        start_learning_rate=8e-6,
        learning_rate=1.2e-3,
        final_learning_rate=8e-5,
        warmup_steps=40 * EPOCH,
        weight_decay=0.05,
        final_weight_decay=0.05,
        betas=(0.9, 0.95),
        masks=({"mask_ratio": 0.9},),
        frame_step=4,
        resize_scale=(0.43, 1.0),
        flip=False,
        data={"Kinetics-400": 1.0},
        notes=(
            "The learning rate is that of a batch of 2,048 clips; the script scales it: 1.5e-4 for 256.",
            "The original crops at one of five places in one of four sizes; here the place and the size are free.",
        ),
    ),
}
