"""VideoMAE beside transformers' built-in port: forward passes, pre-training steps and construction of ViT-B.

VideoMAE V2, which transformers doesn't have, stands beside VideoMAE: what dual masking spares, and its largest size.

python utils/benchmarks/videomae.py
python utils/benchmarks/videomae.py --only forward --dtype fp32 --rounds 3
"""

import torch
import transformers
from side_by_side import LIBRARIES, Call, Comparison, Options, Table, compare, interleave, run, timing_row

import vidformers
from vidformers.models.records import Preset
from vidformers.models.videomae import dual_masks
from vidformers.models.videomae.record import FAMILY


NUM_FRAMES, MASK_RATIO = 16, 0.9
PACKAGES = {"transformers": transformers, "vidformers": vidformers}
TINY = {"num_hidden_layers": 1, "decoder_num_hidden_layers": 1, "image_size": 32}


def image_size(options: Options) -> int:
    """Height and width of the input in pixels."""
    return TINY["image_size"] if options.quick else 224


def build(name: str, options: Options, dtype: torch.dtype) -> dict[str, torch.nn.Module]:
    """A class of the base size in both libraries, with the same weights and without dropout."""
    fields, models = TINY if options.quick else {}, {}
    for library in LIBRARIES:
        package = PACKAGES[library]
        config = package.VideoMAEConfig(use_mean_pooling=False, attn_implementation="sdpa", **fields)
        models[library] = getattr(package, name)(config).to(options.device, dtype).eval()
    models["vidformers"].load_state_dict(models["transformers"].state_dict())
    return models


def videos(batch: int, options: Options, dtype: torch.dtype) -> torch.Tensor:
    """Random input (batch, 16, 3, H, W)."""
    side = image_size(options)
    return torch.randn(batch, NUM_FRAMES, 3, side, side).to(options.device, dtype)


def num_operations(config: transformers.PreTrainedConfig, num_tokens: int) -> float:
    """Floating-point operations of the encoder's matrix products for one video."""
    width, layers = config.hidden_size, config.num_hidden_layers
    projections = 2 * num_tokens * width * (4 * width + 2 * config.intermediate_size)
    attention = 4 * num_tokens * num_tokens * width
    voxels = config.num_channels * config.tubelet_size * config.patch_size**2
    return layers * (projections + attention) + 2 * num_tokens * voxels * width


def forward_calls(options: Options, dtype: torch.dtype) -> Comparison:
    """The encoder, batch 1."""
    models, video = build("VideoMAEModel", options, dtype), videos(1, options, dtype)
    config = models["vidformers"].config
    num_tokens = (NUM_FRAMES // config.tubelet_size) * (image_size(options) // config.patch_size) ** 2
    return Comparison(
        calls={library: lambda model=model: model(video) for library, model in models.items()},
        widest=(num_tokens, config.hidden_size, config.intermediate_size),
        operations={"vidformers": num_operations(config, num_tokens)},
    )


def step(model: torch.nn.Module, video: torch.Tensor, mask: torch.Tensor, **more: torch.Tensor) -> None:
    """Forward and backward pass of pre-training."""
    with torch.enable_grad():
        model.zero_grad()
        model(video, bool_masked_pos=mask, **more).loss.backward()


def pretraining_calls(options: Options, dtype: torch.dtype) -> Comparison:
    """Steps of batch 2, with the same tubes masked."""
    models, video = build("VideoMAEForPreTraining", options, dtype), videos(2, options, dtype)
    config = models["vidformers"].config
    ratio = 0.5 if options.quick else MASK_RATIO
    mask = vidformers.tube_mask(config.token_grid, ratio, batch_size=2, seed=0).to(options.device)
    return Comparison(
        calls={library: lambda model=model: step(model, video, mask) for library, model in models.items()},
        widest=(2 * mask.shape[1], config.hidden_size, config.intermediate_size),
        operations={},
    )


def forward(options: Options) -> Table:
    """Seconds of a forward pass."""
    title = f"VideoMAE ViT-B, encoder, 1 × {NUM_FRAMES} × {image_size(options)}², `sdpa`"
    return compare(title, lambda dtype: forward_calls(options, dtype), options, {"fp32": 5, "bf16": 3})


def pretraining(options: Options) -> Table:
    """Seconds of a step of pre-training."""
    title = f"VideoMAE ViT-B, pre-training step, 2 × {NUM_FRAMES} × {image_size(options)}², {MASK_RATIO:.0%} masked"
    return compare(title, lambda dtype: pretraining_calls(options, dtype), options, {"fp32": 5})


def dual_masking(options: Options) -> Table:
    """Seconds of a step of pre-training with VideoMAE's decoder, and with one that predicts half of the tokens."""
    title = f"VideoMAE V2 ViT-B, pre-training step, 2 × {NUM_FRAMES} × {image_size(options)}², 90% and 50% masked"
    table = Table(title, ("case", "median s", "min–max s", "ratio"), [])
    fields = TINY if options.quick else {}
    model = vidformers.VideoMAEForPreTraining(vidformers.VideoMAEConfig(attn_implementation="sdpa", **fields))
    model, video = model.to(options.device), videos(2, options, torch.float32)
    ratio = 0.5 if options.quick else MASK_RATIO
    masks = dual_masks(model.config.token_grid, ratio, 0.5, batch_size=2, seed=0)
    hidden, not_decoded = (mask.to(options.device) for mask in masks)
    calls = {
        "VideoMAE": lambda: step(model, video, hidden),
        "VideoMAE V2": lambda: step(model, video, hidden, decode_masked_pos=not_decoded),
    }
    seconds = interleave(calls, options.rounds_or(5))
    for name, values in seconds.items():
        table.rows.append(timing_row(name, values, seconds["VideoMAE"]))
    return table


def giant(options: Options) -> Table:
    """Parameters of VideoMAE V2's largest models, and the seconds in which they are there without memory."""
    table = Table(
        "VideoMAE V2 ViT-g/14, on the meta device", ("preset", "million parameters", "median s", "min–max s"), []
    )
    for name in ("videomae-v2-giant-hybrid-1200e", "videomae-v2-giant-hybrid-1200e-k710-finetuned"):
        preset, built = FAMILY.presets[name], {}

        def call(preset: Preset = preset, built: dict = built) -> None:
            with torch.device("meta"):
                config = vidformers.VideoMAEConfig(**preset.config)
                built["model"] = getattr(vidformers, preset.architecture)(config)

        seconds = interleave({name: call}, options.rounds_or(5))[name]
        count = sum(parameter.numel() for parameter in built["model"].parameters())
        table.rows.append([name, f"{count / 1e6:.1f}", *timing_row(name, seconds)[1:]])
    return table


def construct(library: str, device: str, options: Options) -> Call:
    """The construction of a model for pre-training."""
    config_class, fields = PACKAGES[library].VideoMAEConfig, TINY if options.quick else {}

    def call() -> None:
        with torch.device(device):
            PACKAGES[library].VideoMAEForPreTraining(config_class(**fields))

    return call


def construction(options: Options) -> Table:
    """Seconds until a model is there: without weights, as `from_pretrained` starts, and with random ones."""
    table = Table("VideoMAE ViT-B with decoder, construction", ("case", "median s", "min–max s", "ratio"), [])
    for device, label in (("meta", "to be loaded"), ("cpu", "with random weights")):
        calls = {library: construct(library, device, options) for library in LIBRARIES}
        seconds = interleave(calls, options.rounds_or(5))
        for library, values in seconds.items():
            table.rows.append(timing_row(f"{label}, {library}", values, seconds["transformers"]))
    return table


TABLES = {
    "forward": forward,
    "pre-training": pretraining,
    "dual masking": dual_masking,
    "construction": construction,
    "giant": giant,
}
PEAKS: dict = {}

if __name__ == "__main__":
    run(TABLES, PEAKS)
