"""Tiny checkpoints in the structure of the original files, with random weights in every tensor."""

import torch


# What no shape tells of `encoder` and `predictor`.
V2_CONFIG = {"num_attention_heads": 2, "pred_num_attention_heads": 2, "crop_size": 32, "frames_per_clip": 4}


def random_tensors(shapes: dict, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Normal values of standard deviation 0.2 in the given shapes."""
    generator = torch.Generator().manual_seed(seed)
    return {name: (0.2 * torch.randn(shape, generator=generator)).to(dtype) for name, shape in shapes.items()}


def linear(name: str, rows: int, columns: int, bias: bool = True) -> dict:
    return {f"{name}.weight": (rows, columns), **({f"{name}.bias": (rows,)} if bias else {})}


def norm(name: str, width: int) -> dict:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def block(name: str, width: int, mlp: int, qkv_bias: bool = True) -> dict:
    return {
        **norm(f"{name}.norm1", width),
        **linear(f"{name}.attn.qkv", 3 * width, width, qkv_bias),
        **linear(f"{name}.attn.proj", width, width),
        **norm(f"{name}.norm2", width),
        **linear(f"{name}.mlp.fc1", mlp, width),
        **linear(f"{name}.mlp.fc2", width, mlp),
    }


def encoder_shapes(width=32, depth=2, mlp=128, patch=8, tubelet=2, channels=3, qkv_bias=True, stray=True) -> dict:
    """`src/models/vision_transformer.py`, with the table of positions that files carry though nothing reads it."""
    shapes = {
        "patch_embed.proj.weight": (width, channels, tubelet, patch, patch),
        "patch_embed.proj.bias": (width,),
        **norm("norm", width),
        **({"pos_embed": (1, 32, width)} if stray else {}),
    }
    for index in range(depth):
        shapes |= block(f"blocks.{index}", width, mlp, qkv_bias)
    return shapes


def predictor_shapes(width=32, pred_width=24, depth=3, mlp=96, tokens=4, qkv_bias=True) -> dict:
    """`src/models/predictor.py`."""
    shapes = {
        **linear("predictor_embed", pred_width, width),
        **{f"mask_tokens.{index}": (1, 1, pred_width) for index in range(tokens)},
        **norm("predictor_norm", pred_width),
        **linear("predictor_proj", width, pred_width),
        "predictor_pos_embed": (1, 32, pred_width),
    }
    for index in range(depth):
        shapes |= block(f"predictor_blocks.{index}", pred_width, mlp, qkv_bias)
    return shapes


def probe_shapes(width=32, depth=4, heads: dict | None = None, queries=1) -> dict:
    """`src/models/attentive_pooler.py` with linear `heads`, name → number of classes."""
    cross = "pooler.cross_attention_block"
    shapes = {
        "pooler.query_tokens": (1, queries, width),
        **norm(f"{cross}.norm1", width),
        **linear(f"{cross}.xattn.q", width, width),
        **linear(f"{cross}.xattn.kv", 2 * width, width),
        **norm(f"{cross}.norm2", width),
        **linear(f"{cross}.mlp.fc1", 4 * width, width),
        **linear(f"{cross}.mlp.fc2", width, 4 * width),
    }
    for index in range(depth - 1):
        shapes |= block(f"pooler.blocks.{index}", width, 4 * width)
    for name, classes in ({"linear": 11} if heads is None else heads).items():
        shapes |= linear(name, classes, width)
    return shapes


def v2_1_encoder_shapes(levels=4, **sizes) -> dict:
    """`app/vjepa_2_1/models/vision_transformer.py`: an encoder with a norm for each level, and parts for images."""
    shapes = encoder_shapes(**{"depth": 12, "patch": 16, "stray": False, **sizes})
    width, channels, _, patch, _ = shapes["patch_embed.proj.weight"]
    del shapes["norm.weight"], shapes["norm.bias"]
    for index in range(levels):
        shapes |= norm(f"norms_block.{index}", width)
    return shapes | {
        **modalities(width),
        "patch_embed_img.proj.weight": (width, channels, 1, patch, patch),
        "patch_embed_img.proj.bias": (width,),
    }


def modalities(width: int) -> dict:
    return {"img_mod_embed": (1, 1, width), "video_mod_embed": (1, 1, width)}


def v2_1_predictor_shapes(width=32, pred_width=24, outputs=1, teacher=None, **sizes) -> dict:
    """`app/vjepa_2_1/models/predictor.py`: it reads and predicts several levels, and its context tokens as well."""
    shapes = predictor_shapes(width, pred_width, **sizes) | modalities(pred_width)
    del shapes["predictor_pos_embed"]
    if outputs > 1:
        del shapes["predictor_embed.weight"], shapes["predictor_embed.bias"]
        shapes |= linear("predictor_embed.0", width, outputs * width) | linear("predictor_embed.2", pred_width, width)
    predicted = outputs * (teacher or width)
    return (
        shapes
        | linear("predictor_proj", predicted, pred_width)
        | linear("predictor_proj_context", predicted, pred_width)
    )


def ac_predictor_shapes(width=32, pred_width=24, actions=7, **sizes) -> dict:
    """`src/models/ac_predictor.py`."""
    shapes = predictor_shapes(width, pred_width, tokens=0, **sizes)
    del shapes["predictor_pos_embed"]
    conditions = {"action_encoder": actions, "state_encoder": actions, "extrinsics_encoder": actions - 1}
    for name, values in conditions.items():
        shapes |= linear(name, pred_width, values)
    return shapes


ANTICIPATION_HEADS = {"verb_classifier": 5, "noun_classifier": 7, "action_classifier": 9}


def prefixed(prefix: str, tensors: dict) -> dict:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def v2_tree(*, predictor: bool = True, prefix: str = "module.backbone.", seed: int = 0, **sizes) -> dict:
    """A hub file: both encoders, which differ, the predictor, and what training leaves beside them."""
    tree = {
        name: prefixed(prefix, random_tensors(encoder_shapes(**sizes), seed + offset))
        for offset, name in enumerate(("target_encoder", "encoder"))
    }
    if predictor:
        width = sizes.get("width", 32)
        tree["predictor"] = prefixed(prefix, random_tensors(predictor_shapes(width=width), seed + 2))
    state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(5)}}
    return {**tree, "opt": {"state": state, "param_groups": []}, "scaler": None, "epoch": 1, "loss": 0.5}


def v2_1_tree(key="target_encoder", *, outputs=1, teacher=None, seed: int = 0, **sizes) -> dict:
    """A hub file of V-JEPA 2.1; that of a distilled model has the encoder under "ema_encoder"."""
    width = sizes.get("width", 32)
    encoder = random_tensors(v2_1_encoder_shapes(**sizes), seed)
    predictor = random_tensors(v2_1_predictor_shapes(width=width, outputs=outputs, teacher=teacher), seed + 1)
    return {key: prefixed("module.backbone.", encoder), "predictor": prefixed("module.backbone.", predictor)}


def ac_tree(*, seed: int = 0, **sizes) -> dict:
    """The hub file of V-JEPA 2-AC, whose names lack one of the usual wrappers."""
    encoders = {
        name: prefixed("module.", random_tensors(encoder_shapes(**sizes, stray=False), seed + offset))
        for offset, name in enumerate(("encoder", "target_encoder"))
    }
    predictor = random_tensors(ac_predictor_shapes(width=sizes.get("width", 32)), seed + 2)
    return {**encoders, "predictor": prefixed("module.", predictor)}


def probe_tree(count: int = 1, seed: int = 10, **sizes) -> dict:
    """A probe's file with the heads of a training sweep."""
    heads = [prefixed("module.", random_tensors(probe_shapes(**sizes), seed + index)) for index in range(count)]
    return {"classifiers": heads, "opt": [{} for _ in heads], "scaler": None, "epoch": 1, "batch_size": 2}
