"""VideoPrism beside transformers' built-in port: seconds and memory of a forward pass of the base models.

transformers has no `sdpa` for VideoPrism; it runs with `eager`, vidformers with `sdpa`.

python utils/benchmarks/videoprism.py
python utils/benchmarks/videoprism.py --only encoder --dtype fp32 --rounds 3
python utils/benchmarks/videoprism.py --original-repo PATH    # google-deepmind/videoprism as well; needs jax and flax
"""

from functools import partial
from importlib import import_module

import torch
import transformers
from side_by_side import LIBRARIES, Call, Comparison, Options, Table, compare, memory_table, run

import vidformers
from vidformers.conversion.originals import importable
from vidformers.conversion.videoprism.original import clip_parameters, encoder_parameters


NUM_FRAMES = 16
TINY = {"hidden_size": 64, "num_attention_heads": 2, "num_spatial_layers": 1, "num_auxiliary_layers": 1}
MODELS = {"encoder": "VideoPrismVisionModel", "video tower": "VideoPrismVideoModel"}
PACKAGES = {"transformers": (transformers, "eager"), "vidformers": (vidformers, "sdpa")}


def image_size(options: Options) -> int:
    """Height and width of the input in pixels."""
    return 36 if options.quick else 288


def build(model: str, library: str, options: Options, dtype: torch.dtype) -> torch.nn.Module:
    """A model of the base size with random weights."""
    package, attention = PACKAGES[library]
    fields = TINY if options.quick else {}
    config = package.VideoPrismVisionConfig(
        image_size=image_size(options), num_frames=NUM_FRAMES, attn_implementation=attention, **fields
    )
    return getattr(package, MODELS[model])(config).to(options.device, dtype).eval()


def videos(options: Options, dtype: torch.dtype) -> torch.Tensor:
    """Random input (1, 16, 3, H, W)."""
    side = image_size(options)
    return torch.rand(1, NUM_FRAMES, 3, side, side).to(options.device, dtype)


def num_operations(model: str, config: transformers.PreTrainedConfig, patches: int) -> float:
    """Floating-point operations of the matrix products that one video needs, without poolers."""
    width, tokens = config.hidden_size, NUM_FRAMES * patches
    per_token = 2 * width * (4 * width + 2 * config.intermediate_size)
    layers = [(config.num_spatial_layers, patches), (config.num_temporal_layers, NUM_FRAMES)]
    if model == "video tower":
        layers.append((config.num_auxiliary_layers, tokens))
    blocks = sum(count * tokens * (per_token + 4 * width * keys) for count, keys in layers)
    return blocks + 2 * tokens * config.num_channels * config.tubelet_size[1] ** 2 * width


def calls(model: str, options: Options, dtype: torch.dtype) -> Comparison:
    """Both models with the same weights."""
    built = {library: build(model, library, options, dtype) for library in LIBRARIES}
    built["vidformers"].load_state_dict(built["transformers"].state_dict())
    video, config = videos(options, dtype), built["vidformers"].config
    patches = (image_size(options) // config.tubelet_size[1]) ** 2
    timed = {library: lambda module=module: module(video) for library, module in built.items()}
    if options.original and dtype == torch.float32:
        timed["original under jax.jit"] = original(model, config, video, options)
    return Comparison(
        calls=timed,
        widest=(NUM_FRAMES * patches, config.hidden_size, config.intermediate_size),
        operations={"vidformers": num_operations(model, config, patches)},
    )


def original(model: str, config: transformers.PreTrainedConfig, video: torch.Tensor, options: Options) -> Call:
    """The compiled original with random weights."""
    jax = import_module("jax")
    with importable(options.original, ("videoprism",)):
        encoders = import_module("videoprism.encoders")
        if model == "encoder":
            network = encoders.FactorizedEncoder(**encoder_parameters(config, scan=True))
        else:
            network = encoders.FactorizedVideoCLIP(**clip_parameters(config, scan=True))
    frames = jax.numpy.array(video.permute(0, 1, 3, 4, 2).numpy())  # (1, T, H, W, 3)
    weights = jax.jit(network.init)(jax.random.key(0), frames)
    compiled = jax.jit(network.apply)
    return lambda: jax.block_until_ready(compiled(weights, frames))


def forward(model: str, options: Options) -> Table:
    """Seconds of a forward pass."""
    title = f"VideoPrism base, {model}, 1 × {NUM_FRAMES} × {image_size(options)}²"
    return compare(title, lambda dtype: calls(model, options, dtype), options, {"fp32": 5, "bf16": 5})


def memory(options: Options) -> Table:
    """Peak memory of a forward pass."""
    return memory_table("VideoPrism base, memory of a forward pass in float32", PEAKS, options)


def peak(model: str, library: str, options: Options) -> Call:
    """A forward pass."""
    built, video = build(model, library, options, torch.float32), videos(options, torch.float32)
    return lambda: built(video)


TABLES = {**{model: partial(forward, model) for model in MODELS}, "memory": memory}
PEAKS = {f"{model}, {library}": partial(peak, model, library) for model in MODELS for library in LIBRARIES}

if __name__ == "__main__":
    run(TABLES, PEAKS)
