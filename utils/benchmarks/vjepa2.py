"""V-JEPA 2 beside transformers' built-in port: seconds and memory of a forward pass of ViT-L's encoder.

Also what a rollout of V-JEPA 2-AC costs beside one pass over as many frames, and beside computing every step anew.

python utils/benchmarks/vjepa2.py                 # 1 × 16 × 256² on the CPU
python utils/benchmarks/vjepa2.py --device cuda   # batch 8 in bfloat16, plain and compiled
"""

from functools import partial

import torch
import transformers
from side_by_side import LIBRARIES, Call, Comparison, Options, Table, compare, memory_table, run

import vidformers


NUM_FRAMES, CONTEXT_SHARE = 16, 0.25
TINY = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "pred_num_hidden_layers": 1}
NUM_STEPS, NUM_BLOCKS = 8, 2
"""Steps of a rollout, and blocks of its predictor on a CPU: of the published one's 24, which cost the same each."""
PREDICTOR = {"hidden_size": 1408, "num_attention_heads": 22, "num_hidden_layers": 1}
PREDICTOR |= {"pred_hidden_size": 1024, "pred_num_attention_heads": 16}
TINY_PREDICTOR = {**TINY, "crop_size": 32, "pred_hidden_size": 48, "pred_num_attention_heads": 2}
PACKAGES = {"transformers": transformers, "vidformers": vidformers}


def crop_size(options: Options) -> int:
    """Height and width of the input in pixels."""
    return 32 if options.quick else 256


def build(library: str, options: Options, dtype: torch.dtype) -> torch.nn.Module:
    """ViT-L with random weights."""
    fields = dict(TINY) if options.quick else {}
    fields |= {"frames_per_clip": NUM_FRAMES, "crop_size": crop_size(options), "attn_implementation": "sdpa"}
    package = PACKAGES[library]
    return package.VJEPA2Model(package.VJEPA2Config(**fields)).to(options.device, dtype).eval()


def videos(options: Options, dtype: torch.dtype) -> torch.Tensor:
    """Random input (B, 16, 3, H, W)."""
    batch_size = 8 if options.device == "cuda" else 1
    side = crop_size(options)
    return torch.randn(batch_size, NUM_FRAMES, 3, side, side).to(options.device, dtype)


def num_operations(config: transformers.PreTrainedConfig, num_tokens: int) -> float:
    """Floating-point operations of the encoder's matrix products for one video."""
    width, layers = config.hidden_size, config.num_hidden_layers
    projections = 2 * num_tokens * width * width * (4 + 2 * config.mlp_ratio)
    attention = 4 * num_tokens * num_tokens * width
    voxels = config.in_chans * config.tubelet_size * config.patch_size**2
    return layers * (projections + attention) + 2 * num_tokens * voxels * width


def calls(options: Options, dtype: torch.dtype) -> Comparison:
    """Both encoders with the same weights, and ours on a part of the tokens."""
    theirs, ours = (build(library, options, dtype) for library in LIBRARIES)
    ours.load_state_dict(theirs.state_dict())
    video, config = videos(options, dtype), ours.config
    num_tokens = NUM_FRAMES // config.tubelet_size * (crop_size(options) // config.patch_size) ** 2
    kept = int(CONTEXT_SHARE * num_tokens)
    context = torch.stack([torch.randperm(num_tokens)[:kept] for _ in video]).to(options.device)
    found = {
        "transformers": lambda: theirs(video, skip_predictor=True),
        "vidformers": lambda: ours(video, skip_predictor=True),
        "vidformers, 25 % of the tokens as context": lambda: ours(video, context_mask=context, skip_predictor=True),
    }
    if options.device == "cuda":
        for library, model in zip(LIBRARIES, map(torch.compile, (theirs, ours)), strict=True):
            found[f"{library}, compiled"] = lambda model=model: model(video, skip_predictor=True)
    return Comparison(
        calls=found,
        widest=(num_tokens, config.hidden_size, int(config.mlp_ratio * config.hidden_size)),
        operations={"vidformers": len(video) * num_operations(config, num_tokens)},
    )


def encoder(options: Options) -> Table:
    """Seconds of a forward pass."""
    rounds = {"bf16": 5} if options.device == "cuda" else {"fp32": 5, "bf16": 3}
    shape = " × ".join(map(str, videos(options, torch.float32).shape[:2]))
    title = f"V-JEPA 2 ViT-L, {shape} × {crop_size(options)}², `sdpa`, encoder alone"
    return compare(title, lambda dtype: calls(options, dtype), options, rounds)


def memory(options: Options) -> Table:
    """Peak memory of a forward pass."""
    return memory_table("V-JEPA 2 ViT-L, memory of the encoder's forward pass in float32", PEAKS, options)


def peak(library: str, options: Options) -> Call:
    """A forward pass of the encoder."""
    model, video = build(library, options, torch.float32), videos(options, torch.float32)
    return lambda: model(video, skip_predictor=True)


def rollout_calls(options: Options, dtype: torch.dtype) -> Comparison:
    """The predictor over all frames at once, a rollout that keeps keys and values, and one that computes anew."""
    fields, blocks = TINY_PREDICTOR if options.quick else PREDICTOR, NUM_BLOCKS if options.device == "cpu" else 24
    config = vidformers.VJEPA2Config(**fields | {"pred_num_hidden_layers": blocks}, attn_implementation="sdpa")
    model = vidformers.VJEPA2ACModel(config).to(options.device, dtype).eval()
    side, place = config.crop_size // config.patch_size, {"device": options.device, "dtype": dtype}
    features = torch.randn(1, NUM_STEPS, side, side, config.hidden_size, **place)
    conditions = [torch.randn(1, NUM_STEPS, config.action_embed_dim, **place) for _ in range(2)]

    def anew() -> torch.Tensor:
        seen = features[:, :1]
        for count in range(1, NUM_STEPS + 1):
            seen = model.rollout(seen, *(given[:, :count] for given in conditions))
        return seen

    found = {
        "one pass over all frames": lambda: model.predictor(features, *conditions),
        "rollout": lambda: model.rollout(features[:, :1], *conditions),
        "rollout, every step anew": anew,
    }
    width = config.pred_hidden_size
    return Comparison(found, (NUM_STEPS * (side * side + 2), width, int(config.pred_mlp_ratio * width)), {})


def rollout(options: Options) -> Table:
    """Seconds of a rollout."""
    title = f"V-JEPA 2-AC, {NUM_STEPS} steps of {'all' if options.device == 'cuda' else NUM_BLOCKS} blocks, `sdpa`"
    return compare(title, lambda dtype: rollout_calls(options, dtype), options, {"fp32": 5})


TABLES = {"encoder": encoder, "rollout": rollout, "memory": memory}
PEAKS = {f"encoder, {library}": partial(peak, library) for library in LIBRARIES}

if __name__ == "__main__":
    run(TABLES, PEAKS)
