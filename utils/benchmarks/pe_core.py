"""PE core: seconds and memory of a forward pass of the base model's vision tower, and of the embedding of a video.

Transformers has no PE core to run beside; the backends of attention stand beside each other.

python utils/benchmarks/pe_core.py
python utils/benchmarks/pe_core.py --only video --dtype fp32 --rounds 3
"""

from functools import partial

import torch
from side_by_side import Call, Comparison, Options, Table, compare, memory_table, run

from vidformers import PeCoreConfig, PeCoreModel
from vidformers.families import FAMILIES


PRESET = FAMILIES["pe_core"].presets["PE-Core-B16-224"]
BACKENDS = ("eager", "sdpa")
CASES = {"images": 8, "video": 8}
"""How many images, and how many frames of one video."""
TINY = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64, "image_size": 32}
TINY_TEXT = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64}


def build(backend: str, options: Options, dtype: torch.dtype) -> PeCoreModel:
    """The model with random weights."""
    fields = {name: dict(PRESET.config[name]) for name in ("vision_config", "text_config")}
    if options.quick:
        fields["vision_config"] |= TINY
        fields["text_config"] |= TINY_TEXT
    config = PeCoreConfig(**fields)
    config._attn_implementation = backend
    return PeCoreModel(config).to(options.device, dtype).eval()


def pixels(case: str, model: PeCoreModel, options: Options, dtype: torch.dtype) -> torch.Tensor:
    """Images (8, 3, H, W), or a video (1, 8, 3, H, W)."""
    side = model.config.vision_config.image_size
    images = torch.randn(CASES[case], 3, side, side).to(options.device, dtype)
    return images if case == "images" else images[None]


def call(case: str, model: PeCoreModel, inputs: torch.Tensor) -> Call:
    """What is measured of a case."""
    return partial(model.vision_model if case == "images" else model.embed_videos, inputs)


def num_operations(model: PeCoreModel, case: str) -> float:
    """Floating-point operations of the matrix products of the blocks and the patches, without pooling."""
    tower = model.config.vision_config
    patches = (tower.image_size // tower.patch_size) ** 2
    width, tokens = tower.hidden_size, patches + tower.use_cls_token
    per_token = 2 * width * (4 * width + 2 * tower.intermediate_size) + 4 * width * tokens
    voxels = tower.num_channels * tower.patch_size**2
    return CASES[case] * (tower.num_hidden_layers * tokens * per_token + 2 * patches * voxels * width)


def calls(case: str, options: Options, dtype: torch.dtype) -> Comparison:
    """The same weights under every backend."""
    models = {backend: build(backend, options, dtype) for backend in BACKENDS}
    models["sdpa"].load_state_dict(models["eager"].state_dict())
    inputs, tower = pixels(case, models["sdpa"], options, dtype), models["sdpa"].config.vision_config
    num_tokens = CASES[case] * (tower.image_size // tower.patch_size) ** 2
    return Comparison(
        calls={f"vidformers, {name}": call(case, model, inputs) for name, model in models.items()},
        widest=(num_tokens, tower.hidden_size, tower.intermediate_size),
        operations={"vidformers, sdpa": num_operations(models["sdpa"], case)},
    )


def forward(case: str, options: Options) -> Table:
    """Seconds of a case."""
    what = {"images": "vision tower, 8 images of 224²", "video": "embedding of a video, 8 × 224²"}[case]
    return compare(f"PE core base, {what}", lambda dtype: calls(case, options, dtype), options, {"fp32": 5, "bf16": 5})


def memory(options: Options) -> Table:
    """Peak memory of the cases."""
    return memory_table("PE core base, memory in float32", PEAKS, options)


def peak(case: str, backend: str, options: Options) -> Call:
    """A case with one backend."""
    model = build(backend, options, torch.float32)
    return call(case, model, pixels(case, model, options, torch.float32))


TABLES = {**{case: partial(forward, case) for case in CASES}, "memory": memory}
PEAKS = {f"{case}, vidformers, {name}": partial(peak, case, name) for case in CASES for name in BACKENDS}

if __name__ == "__main__":
    run(TABLES, PEAKS)
