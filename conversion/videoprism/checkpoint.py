"""VideoPrism: files of google-deepmind/videoprism (commit d481d91b) and the names of transformers.

A file is an archive of numpy arrays with names such as `params/vision_encoder/spatial_ln/scale`. There are three
trees, from `videoprism/encoders.py`: the video encoder, the encoder with an attention pooler and a classifier, and the
video-text model (CLIP). Published files hold the layers of a stack in one array each (flax's `scan`); training without
`scan` leaves one tree a layer. What transformers has no name for keeps that of our models.
"""

from collections.abc import Iterator
from math import isqrt
from typing import Any

from vidformers.conversion.ops import Chain, Constant, Reshape, Transpose, Unstack
from vidformers.conversion.rules import Bounded, Entry, Form, Rule, Shapes, under


CHANNELS = 3
SPATIAL, TEMPORAL = "spatial_encoder/transformers_stack", "temporal_encoder/transformers_stack"
AUXILIARY, TEXT = "auxiliary_encoder/transformers_stack", "text_encoder/unimodal_transformer"
OF_A_BATCH = "ours has an axis for the batch"


# ------------------------------------------------------------------------------------------------------------- rules


def _norm(ours: str, theirs: str) -> Iterator[Rule]:
    yield Rule(f"{ours}.weight", f"{theirs}/scale")
    yield Rule(f"{ours}.bias", f"{theirs}/bias")


def _linear(ours: str, theirs: str) -> Iterator[Rule]:
    yield Rule(f"{ours}.weight", f"{theirs}/kernel", Transpose(), "theirs is (inputs, outputs)")
    yield Rule(f"{ours}.bias", f"{theirs}/bias")


def _attention(config: Any) -> Iterator[Rule]:
    width, heads = config.hidden_size, config.num_attention_heads
    merge, flatten = Reshape((width, heads, -1), (width, -1)), Reshape((heads, -1), (-1,))
    turn = Chain((merge, Transpose()))
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
        yield Rule(f"{letter}_proj.weight", f"{name}/w", turn, "theirs is (inputs, heads, channels)")
        yield Rule(f"{letter}_proj.bias", f"{name}/b", flatten, "theirs is (heads, channels)")
    # The original multiplies with "...NH,DNH->...D".
    yield Rule("o_proj.weight", "post/w", merge, "theirs is (outputs, heads, channels)")
    yield Rule("o_proj.bias", "post/b")


def _layer(config: Any, is_hybrid: bool) -> Iterator[Rule]:
    yield from under(_attention(config), "attention.", "self_attention/")
    yield from _linear("mlp.fc1", "ff_layer/ffn_layer1/linear")
    yield from _linear("mlp.fc2", "ff_layer/ffn_layer2/linear")
    before = "pre_layer_norm" if is_hybrid else "layer_norm"
    yield from _norm("layernorm_before", before)
    yield from _norm("layernorm_after", f"ff_layer/{before}")
    if is_hybrid:
        yield from _norm("attention_post_layernorm", "post_layer_norm")
        yield from _norm("mlp_post_layernorm", "ff_layer/post_layer_norm")


def _pooler(config: Any) -> Iterator[Rule]:
    queries = Reshape((-1, config.hidden_size), (1, -1, config.hidden_size))
    yield from under(_attention(config), "head.", "pooling_attention/")
    yield Rule("head.per_dim_scale", "pooling_attention/per_dim_scale/per_dim_scale")
    yield Rule("head.pooling_attention_query", "pooling_attention_query", queries, OF_A_BATCH)
    yield from _norm("head_layernorm", "pooling_attention_layer_norm")


def _pooler_fields(shapes: Shapes, theirs: str) -> dict[str, Any]:
    return {
        "pooler_head_dim": shapes[f"{theirs}/pooling_attention/per_dim_scale/per_dim_scale"][0],
        "num_pooling_queries": shapes[f"{theirs}/pooling_attention_query"][0],
    }


# ------------------------------------------------------------------------------------------------------------- forms


class _VideoPrismForm(Form):
    """What all trees have in common; `is_scanned` says how a file holds its stacks."""

    family = "videoprism"
    entries = {"": Entry(("params",))}
    tree: str  # the title without `is_scanned`
    stacks: tuple[str, ...]  # those that tell the tree from others

    def __init__(self, is_scanned: bool):
        self.is_scanned = is_scanned
        self.first = "x_layers" if is_scanned else "x_layers_0"  # where a stack holds its first layer
        self.title = f"{self.tree}, {'scanned layers' if is_scanned else 'one tree a layer'}"
        self.fingerprint = tuple(f"{stack}/{self.first}/self_attention/query/w" for stack in self.stacks)

    def sizes(self, shapes: Shapes, stack: str) -> tuple[int, int, int]:
        """Layers, heads and width of the MLPs of a stack."""
        *layers, _, heads, _ = shapes[f"{stack}/{self.first}/self_attention/query/w"]
        if not self.is_scanned:
            names = (name.removeprefix(f"{stack}/") for name in shapes if name.startswith(f"{stack}/"))
            layers = [len({name.partition("/")[0] for name in names})]
        return layers[0], heads, shapes[f"{stack}/{self.first}/ff_layer/ffn_layer1/linear/bias"][-1]

    def stack(self, config: Any, count: int, ours: str, theirs: str, is_hybrid: bool = False) -> Iterator[Rule]:
        """The rules of `count` layers."""
        names = ["x_layers" if self.is_scanned else f"x_layers_{i}" for i in range(count)]
        layers = [
            under(_layer(config, is_hybrid), f"{ours}.{i}.", f"{theirs}/{name}/") for i, name in enumerate(names)
        ]
        for same in zip(*layers, strict=True):  # what the layers have in the same place
            if self.is_scanned:
                of_all = [name for each in same for name in each.ours]
                why = "; ".join(filter(None, ["one array holds all layers", same[0].why]))
                yield Rule(of_all, same[0].theirs, Chain((Unstack(), same[0].op)), why)
            else:
                yield from same


class _EncoderForm(_VideoPrismForm):
    tree = "VideoPrism encoder"
    architecture = "VideoPrismVisionModel"
    stacks = (SPATIAL,)
    required = ("image_size",)  # unless it is that of a square
    ours, theirs = "", ""  # what the names of the encoder's tensors begin with

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        values, width = shapes[f"{self.theirs}patch_projection/linear/kernel"]
        positions, side = shapes[f"{self.theirs}spatial_pos_emb/emb_var"][0], isqrt(values // CHANNELS)
        layers, heads, mlp = self.sizes(shapes, self.theirs + SPATIAL)

        def has_positions(image_size: int | list[int]) -> bool:
            height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
            return (height // side) * (width // side) == positions

        return {
            "image_size": Bounded(
                isqrt(positions) * side if isqrt(positions) ** 2 == positions else None, has_positions
            ),
            "num_frames": shapes[f"{self.theirs}temporal_pos_emb/emb_var"][0],
            "tubelet_size": [1, side, side],
            "hidden_size": width,
            "num_attention_heads": heads,
            "intermediate_size": mlp,
            "num_spatial_layers": layers,
            "num_temporal_layers": self.sizes(shapes, self.theirs + TEMPORAL)[0],
        }

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from under(self.encoder_rules(config), self.ours, self.theirs)

    def encoder_rules(self, config: Any) -> Iterator[Rule]:
        """The encoder."""
        width, side = config.hidden_size, config.tubelet_size[1]
        pixels = Reshape((-1, width), (side, side, config.num_channels, 1, width))
        patches, why = Chain((pixels, Transpose((4, 2, 3, 0, 1)))), "theirs is (rows · columns · channels, outputs)"
        yield Rule(
            "spatial_embeddings.patch_embeddings.projection.weight", "patch_projection/linear/kernel", patches, why
        )
        yield Rule("spatial_embeddings.patch_embeddings.projection.bias", "patch_projection/linear/bias")
        for name, count in (("spatial", config.num_spatial_layers), ("temporal", config.num_temporal_layers)):
            table = Reshape((-1, width), (1, -1, width))
            yield Rule(f"{name}_embeddings.position_embeddings", f"{name}_pos_emb/emb_var", table, OF_A_BATCH)
            yield from self.stack(config, count, f"{name}_layers", f"{name}_encoder/transformers_stack")
        yield from _norm("layernorm1", "spatial_ln")
        yield from _norm("layernorm2", "temporal_ln")

    def processor_settings(self, config: Any) -> dict[str, Any]:
        return {"num_frames": config.num_frames, "size": config.image_size}


class _ClassifierForm(_EncoderForm):
    tree = "VideoPrism classifier"
    architecture = "VideoPrismForVideoClassification"
    stacks = (f"encoder/{SPATIAL}",)
    ours, theirs = "vision_model.", "encoder/"

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        num_labels = shapes["projection/linear/bias"][0]
        return super().config_from(shapes) | _pooler_fields(shapes, "atten_pooler") | {"num_labels": num_labels}

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        yield from under(_pooler(config), "", "atten_pooler/")
        yield from _linear("classifier", "projection/linear")


class _VideoTowerForm(_EncoderForm):
    tree = "VideoPrism video tower"
    architecture = "VideoPrismVideoModel"
    stacks = (f"vision_encoder/{SPATIAL}",)
    ours, theirs = "vision_model.", "vision_encoder/"

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        has_auxiliary = any(name.startswith(f"{AUXILIARY}/") for name in shapes)
        auxiliary = {"num_auxiliary_layers": self.sizes(shapes, AUXILIARY)[0] if has_auxiliary else 0}
        return super().config_from(shapes) | auxiliary | _pooler_fields(shapes, "contrastive_vision_pooler")

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from super().rules(config)
        yield from self.stack(config, config.num_auxiliary_layers, "auxiliary_layers", AUXILIARY)
        yield from under(_pooler(config), "", "contrastive_vision_pooler/")


class _TextTowerForm(_VideoPrismForm):
    tree = "VideoPrism text tower"
    architecture = "VideoPrismTextModel"
    stacks = (TEXT,)

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        vocabulary, width = shapes["text_encoder/token_emb/emb_var"]
        layers, heads, mlp = self.sizes(shapes, TEXT)
        return {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": mlp,
            "norm_policy": "primer_hybrid" if f"{TEXT}/{self.first}/post_layer_norm/scale" in shapes else "pre",
        }

    def rules(self, config: Any) -> Iterator[Rule]:
        yield Rule("embeddings.token_embedding.weight", "text_encoder/token_emb/emb_var")
        yield Rule("embeddings.cls_emb", "text_encoder/cls_emb")
        yield from self.stack(config, config.num_hidden_layers, "layers", TEXT, config.norm_policy == "primer_hybrid")
        yield from _norm("layernorm", "text_encoder/unimodal_ln")


class _ClipForm(_VideoPrismForm):
    tree = "VideoPrism CLIP"
    architecture = "VideoPrismClipModel"
    stacks = (*_VideoTowerForm.stacks, *_TextTowerForm.stacks)
    required = ("vision_config.image_size",)

    def __init__(self, is_scanned: bool):
        super().__init__(is_scanned)
        self.video, self.text = _VideoTowerForm(is_scanned), _TextTowerForm(is_scanned)

    def config_from(self, shapes: Shapes) -> dict[str, Any]:
        return {"vision_config": self.video.config_from(shapes), "text_config": self.text.config_from(shapes)}

    def rules(self, config: Any) -> Iterator[Rule]:
        yield from under(self.video.rules(config.vision_config), "video_model.")
        yield from under(self.text.rules(config.text_config), "text_model.")
        if config.logit_scale_init_value is not None:
            temperature = Constant(config.logit_scale_init_value, (1,))
            yield Rule("logit_scale", (), temperature, "the original learns no temperature")

    def processor_settings(self, config: Any) -> dict[str, Any]:
        return self.video.processor_settings(config.vision_config)


class _VideoTowerOfClipForm(_VideoTowerForm):
    tree = "video tower of a VideoPrism CLIP"
    stacks = _ClipForm.stacks
    on_request = True
    left_out = {"text_encoder": "the text tower, which VideoPrismVideoModel does not have"}


class _TextTowerOfClipForm(_TextTowerForm):
    tree = "text tower of a VideoPrism CLIP"
    stacks = _ClipForm.stacks
    on_request = True
    left_out = dict.fromkeys(
        ("vision_encoder", "auxiliary_encoder", "contrastive_vision_pooler"),
        "the video tower, which VideoPrismTextModel does not have",
    )


TREES = (
    _ClipForm,
    _VideoTowerOfClipForm,
    _TextTowerOfClipForm,
    _VideoTowerForm,
    _TextTowerForm,
    _ClassifierForm,
    _EncoderForm,
)
FORMS = tuple(tree(is_scanned) for is_scanned in (True, False) for tree in TREES)
