"""The Python blocks and the commands of README.md and docs run as they are written, and their links lead somewhere.

Every page runs in a folder of its own where the files that it names exist: `video.mp4`, `vitl.pt`, … The names of Hub
repositories are those of folders there, `facebook/…`, with tiny models of the same classes; `from_pretrained` prefers
a folder to the Hub. Presets keep their names and get the tiny models' sizes. `<!-- needs: PACKAGE -->` before a block
leaves it out where that is not installed. Blocks in `text` show something and don't run.
"""

import gzip
import json
import re
import shlex
import shutil
import socket
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer
from typer.testing import CliRunner

import vidformers
import vidformers.training
from tests.original_files import encoder_shapes, predictor_shapes, prefixed, probe_tree, random_tensors
from tests.text_files import save_modernbert_tokenizer, t5_model
from tests.torchcodec_stand_in import provide_torchcodec
from tests.video_files import picture, write_video
from vidformers import (
    VJEPA2ACModel,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
    VJEPA2Model,
    VJEPA2VideoProcessor,
)
from vidformers.commands import cli
from vidformers.commands import convert as convert_command
from vidformers.commands import pretrain as pretrain_command
from vidformers.commands.listing import describe
from vidformers.conversion import reverse_directory
from vidformers.families import FAMILIES


ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"(?:^<!-- needs: (\w+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHAPE_COMMENT = re.compile(r"^(\s*)(\w+) = (.*?)  # \((\d+(?:, \d+)+)\).*$", re.MULTILINE)

HUB_WIDTH, FILE_WIDTH = 32, 96  # the width of ViT-L in the pages' shapes is 1024
IN_A_TEST = dict.fromkeys(("finetune", "probe"), ["--epochs", "1", "--workers", "0"])  # what makes commands quick
IN_A_TEST |= {"pretrain": ["--workers", "0"]}
PUBLISHED_WIDTHS = 1024, 768, 1792  # of V-JEPA 2's ViT-L, VideoPrism's base size and PE Video's large one
HUB = {"hidden_size": HUB_WIDTH, "num_attention_heads": 2}
VIDEOPRISM = {**HUB, "intermediate_size": 64, "num_spatial_layers": 1, "num_temporal_layers": 1}
VIDEOPRISM_TEXT = {**HUB, "intermediate_size": 128, "num_hidden_layers": 1, "vocab_size": 150}
PE_VIDEO = {**HUB, "head_dim": 16, "intermediate_size": 64, "num_hidden_layers": 1}
PE_TEXT = {**HUB, "model_type": "modernbert", "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 60}
PE_TEXT |= {f"{name}_token_id": index for index, name in enumerate(("pad", "cls", "sep", "bos", "eos"))}
PE_VISION = {**HUB, "intermediate_size": 64, "num_hidden_layers": 1}
VIDEOMAE = {**HUB, "intermediate_size": 64, "num_hidden_layers": 1}
VIDEOMAE |= {f"decoder_{name}": value for name, value in (*VIDEOMAE.items(), ("hidden_size", 24))}
HUB_PREDICTOR = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
CLASSES = {index: f"something {index}" for index in range(174)}


def blocks(page: str) -> list[tuple[int, str, str]]:
    """(line of its fence, language, text) of every block of a page that can run: what it needs is installed."""
    text = (ROOT / page).read_text("utf-8")
    return [
        (text[: found.start(2)].count("\n") + 1, found[2], found[3])
        for found in FENCE.finditer(text)
        if found[1] is None or find_spec(found[1])
    ]


def save(model, folder: Path) -> None:
    model.save_pretrained(folder)
    VJEPA2VideoProcessor(crop_size=model.config.crop_size).save_pretrained(folder)


pytestmark = pytest.mark.xdist_group("readme")  # the blocks share a folder


@pytest.fixture(scope="module")
def named_files(tmp_path_factory) -> Path:
    """A folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    torch.manual_seed(0)
    save(
        VJEPA2Model(VJEPA2Config(**HUB, **HUB_PREDICTOR, num_hidden_layers=2)),
        folder / "facebook/vjepa2-vitl-fpc64-256",
    )
    for name, num_frames, num_layers in (("fpc16-256-ssv2", 16, 2), ("fpc32-256-diving48", 32, 24)):
        config = VJEPA2Config(**HUB, num_hidden_layers=num_layers, frames_per_clip=num_frames, id2label=CLASSES)
        save(VJEPA2ForVideoClassification(config), folder / "facebook" / f"vjepa2-vitl-{name}")

    save(VJEPA2ACModel(VJEPA2Config(**HUB, **HUB_PREDICTOR, num_hidden_layers=2)), folder / "vjepa2-ac-vitg-fpc64-256")
    levels = {"hierarchical_layers": [0, 1], "use_modality_embeddings": True, "use_image_patch_embedder": True}
    config = VJEPA2Config(**HUB, **HUB_PREDICTOR, **levels, num_hidden_layers=2, use_context_projection=True)
    save(VJEPA2Model(config), folder / "vjepa2.1-vitl-fpc64-384")

    save_videoprism(folder)
    save_videomae(folder)
    save_pe_video(folder)
    save_pe_core(folder)
    save_other_presets(folder)
    (folder / "videos").mkdir()
    for name in ("video.mp4", "match.mp4", "videos/one.mp4", "videos/two.mp4"):
        write_video(folder / name, num_frames=70)
    for label in ("left", "right"):
        (folder / "clips" / label).mkdir(parents=True)
        for name in ("one.mp4", "two.mp4", "three.mp4"):
            write_video(folder / "clips" / label / name, num_frames=16)
    (folder / "pictures").mkdir()
    for name in ("image.jpg", "pictures/one.jpg", "pictures/two.jpg"):
        Image.fromarray(picture(0, 300, 400)).save(folder / name)

    encoder = encoder_shapes(width=FILE_WIDTH, mlp=4 * FILE_WIDTH, patch=16)
    predictor = predictor_shapes(width=FILE_WIDTH, pred_width=72, mlp=288, depth=1, tokens=10)
    shapes = {"encoder": encoder, "target_encoder": encoder, "predictor": predictor}
    checkpoint = {
        name: prefixed("module.backbone.", random_tensors(part, seed))
        for seed, (name, part) in enumerate(shapes.items())
    }
    for name in ("vitl.pt", "mine.pt"):
        torch.save(checkpoint, folder / name)
    torch.save(probe_tree(heads={"linear": len(CLASSES)}, width=FILE_WIDTH), folder / "ssv2-vitl-16x2x3.pt")
    (folder / "ssv2.txt").write_text("\n".join(CLASSES.values()))
    return folder


def save_videoprism(folder: Path) -> None:
    """Directories, archives and a vocabulary as the page of VideoPrism names them."""
    (folder / "spiece.model").write_bytes(t5_model())
    models = {
        "base": vidformers.VideoPrismVisionModel(vidformers.VideoPrismVisionConfig(**VIDEOPRISM)),
        "lvt-base": vidformers.VideoPrismClipModel(
            vidformers.VideoPrismConfig(vision_config=VIDEOPRISM, text_config=VIDEOPRISM_TEXT)
        ),
    }
    processor = vidformers.VideoPrismVideoProcessor()
    for name, model in models.items():
        directory = folder / f"videoprism-{name}-f16r288"
        model.save_pretrained(directory)
        if name == "lvt-base":
            processor = vidformers.VideoPrismProcessor(
                processor, vidformers.VideoPrismTokenizer(folder / "spiece.model")
            )
        processor.save_pretrained(directory)
        reverse_directory(directory, folder / f"flax_{name.replace('-', '_')}_f16r288_repeated.npz")


def save_other_presets(folder: Path) -> None:
    """For every further checkpoint that a page names, a directory with a tiny model of its class."""
    text = "".join(code for page in PAGES for _, language, code in blocks(page) if language == "python")
    for family in FAMILIES.values():
        for name, preset in family.presets.items():
            model_class = getattr(vidformers, preset.architecture)
            for repo in set(re.findall(rf'(?<!preset=)"((?:[\w-]+/)?{re.escape(name)})"', text)):
                if not (folder / repo).exists():
                    model_class(model_class.config_class(**shrunk(preset.config))).save_pretrained(folder / repo)
                    processor_class = getattr(vidformers, family.video_processor_class)
                    processor_class(**preset.video_processor).save_pretrained(folder / repo)


def shrunk(config: dict) -> dict:
    """Fields of a tiny model that takes input of the same size."""
    widths = {"hidden_size": HUB_WIDTH, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 150}
    depths = {name: 1 for name in config if re.fullmatch(r"num_\w*layers", name)}
    parts = {name: shrunk(value) for name, value in config.items() if isinstance(value, dict)}
    return {**config, **{name: width for name, width in widths.items() if name in config}, **depths, **parts}


def save_pe_video(folder: Path) -> None:
    """The directories that the page of PE Video names: one of transformers' audio-video model, and an original one."""
    codec = {"encoder_hidden_size": 2, "downsampling_ratios": [2], "decoder_hidden_size": 8, "n_codebooks": 2}
    video = {**PE_VIDEO, "vision_config": {**PE_VISION, "projection_dim": HUB_WIDTH}}
    both = {**PE_VIDEO, "video_config": video, "audio_config": {**PE_VIDEO, "dac_config": codec}}
    config = transformers.PeAudioVideoConfig(text_config=PE_TEXT, audio_video_config=both)
    whole, repo = transformers.PeAudioVideoModel(config), folder / "facebook/pe-av-large-16-frame"
    whole.save_pretrained(repo)
    save_modernbert_tokenizer(folder / "pe-av-large")
    processor, tokenizer = vidformers.PeVideoVideoProcessor(), AutoTokenizer.from_pretrained(folder / "pe-av-large")
    transformers.PeAudioVideoProcessor(transformers.PeAudioFeatureExtractor(), processor, tokenizer).save_pretrained(
        repo
    )

    whole.video_model.save_pretrained(folder / "video-of-pe-av")
    reverse_directory(folder / "video-of-pe-av", folder / "pe-av-large/model.safetensors")
    settings = {"text_model": PE_TEXT, "nth_text_layer": 1, "audio_visual_model": {}}
    (folder / "pe-av-large/config.json").write_text(json.dumps(settings))


def save_pe_core(folder: Path) -> None:
    """Directories, files and a vocabulary as the page of PE core names them."""
    (folder / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(b"#version\na b</w>"))
    text = {**HUB, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 520, "projection_dim": HUB_WIDTH}
    config = vidformers.PeCoreConfig(vision_config={**PE_VISION, "projection_dim": HUB_WIDTH}, text_config=text)
    spatial = {**PE_VISION, "architecture": "vit_pe_spatial_large_patch14_448"}
    models = {
        "PE-Core-L14-336": vidformers.PeCoreModel(config),
        "PE-Spatial-L14-448": vidformers.PeVisionModel(vidformers.PeVisionConfig(**spatial)),
    }
    processors = {
        "PE-Core-L14-336": vidformers.PeCoreProcessor(
            vidformers.PeCoreImageProcessor(),
            vidformers.PeCoreVideoProcessor(),
            vidformers.PeCoreTokenizer(folder / "bpe_simple_vocab_16e6.txt.gz"),
        ),
        "PE-Spatial-L14-448": vidformers.PeCoreImageProcessor(size={"height": 448, "width": 448}),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        processors[name].save_pretrained(folder / name)
        reverse_directory(folder / name, folder / f"{name}.pt")


def save_videomae(folder: Path) -> None:
    """Directories and original files as the page of VideoMAE names them."""
    classes = vidformers.VideoMAEForPreTraining, vidformers.VideoMAEForVideoClassification
    names = ("base", "pretrained"), ("base-finetuned-kinetics", "kinetics")
    for model_class, (name, file) in zip(classes, names, strict=True):
        is_classifier = model_class is classes[1]
        config = vidformers.VideoMAEConfig(**VIDEOMAE, num_labels=400, use_mean_pooling=is_classifier)
        directory = folder / f"MCG-NJU/videomae-{name}"
        model_class(config).save_pretrained(directory)
        vidformers.VideoMAEVideoProcessor().save_pretrained(directory)
        reverse_directory(directory, folder / f"{file}.pth")

    names = [f"class {index}" for index in range(710)]
    pooled = {"use_mean_pooling": True, "use_pooler": True}
    v2 = {
        "OpenGVLab/VideoMAEv2-Base": vidformers.VideoMAEModel(vidformers.VideoMAEConfig(**VIDEOMAE, **pooled)),
        "k710": vidformers.VideoMAEForVideoClassification(vidformers.VideoMAEConfig(**VIDEOMAE, num_labels=710)),
    }
    for name, model in v2.items():
        model.save_pretrained(folder / name)
        vidformers.VideoMAEVideoProcessor().save_pretrained(folder / name)
    reverse_directory(folder / "k710", folder / "vit_b_k710_dl_from_giant.pth")
    for count in (710, 400):
        (folder / f"label_map_k{count}.txt").write_text("\n".join(names[:count]))


@pytest.fixture
def folder(named_files, tmp_path, monkeypatch) -> Path:
    """The current directory of a page, with tiny presets and nothing to upload to."""
    copy = shutil.copytree(named_files, tmp_path / "page")
    monkeypatch.chdir(copy)
    for preset in FAMILIES["vjepa2"].presets.values():
        monkeypatch.setitem(preset.config, "hidden_size", FILE_WIDTH)
        monkeypatch.setitem(preset.config, "num_hidden_layers", 2)
    for preset in FAMILIES["videoprism"].presets.values():
        tiny = {**VIDEOPRISM, "pooler_head_dim": VIDEOPRISM["intermediate_size"] // VIDEOPRISM["num_attention_heads"]}
        for name, value in tiny.items():
            monkeypatch.setitem(preset.config.get("vision_config", preset.config), name, value)
        for name, value in VIDEOPRISM_TEXT.items() if "text_config" in preset.config else ():
            monkeypatch.setitem(preset.config["text_config"], name, value)
    config = FAMILIES["pe_video"].presets["pe-av-large"].config
    for name, tiny in {"video_config": PE_VIDEO, "text_config": PE_TEXT}.items():
        for field in config[name].keys() & tiny.keys():
            monkeypatch.setitem(config[name], field, tiny[field])
    monkeypatch.setitem(config["video_config"]["vision_config"], "num_attention_heads", HUB["num_attention_heads"])
    for name in ("PE-Core-L14-336", "PE-Spatial-L14-448"):
        config = FAMILIES["pe_core"].presets[name].config
        for part in (config.get("vision_config", config), config.get("text_config", {})):
            monkeypatch.setitem(part, "num_attention_heads", HUB["num_attention_heads"])
    for preset in FAMILIES["videomae"].presets.values():
        for name, value in VIDEOMAE.items():
            monkeypatch.setitem(preset.config, name, value)
    shorten_pretraining(monkeypatch)
    monkeypatch.setattr(convert_command, "push", lambda directory, repo: f"https://huggingface.co/{repo}")
    with socket.socket() as free:  # for a group of one process, as torchrun says it
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    provide_torchcodec(monkeypatch)
    return copy


def shorten_pretraining(monkeypatch) -> None:
    """Let recipes have small clips and few steps, whatever a page asks for, and make tiny models."""
    recipes, change = FAMILIES["videomae"].recipes, pretrain_command.change
    for name, recipe in recipes.items():
        monkeypatch.setitem(recipes, name, replace(recipe, config={**recipe.config, **VIDEOMAE}))
    name, tiny = "vjepa2.1-vitl-pretrain", {**HUB, **HUB_PREDICTOR, "num_hidden_layers": 2}
    recipe = FAMILIES["vjepa2"].recipes[name]
    tiny |= {"hierarchical_layers": [0, 1], "num_distillation_outputs": 2}
    monkeypatch.setitem(FAMILIES["vjepa2"].recipes, name, replace(recipe, config={**recipe.config, **tiny}))

    def shorten(recipe, changes):
        return change(recipe, changes | {"num_frames": 4, "crop_size": 64, "steps": 2, "batch_size": 4})

    monkeypatch.setattr(pretrain_command, "change", shorten)


def check_shape(value, stated: str) -> None:
    *sizes, last = map(int, stated.split(", "))
    assert list(value.shape) == [*sizes, HUB_WIDTH if last in PUBLISHED_WIDTHS else last]


def run_python(code: str, page: str, line: int, namespace: dict) -> None:
    """Run a block; a comment after an assignment that starts with a shape must tell the truth."""
    code = SHAPE_COMMENT.sub(r'\1\2 = \3; check_shape(\2, "\4")', code)
    exec(compile("\n" * line + code, ROOT / page, "exec"), namespace)


def run_commands(text: str) -> None:
    for command in re.findall(r"^vidformers .*$", text.replace("\\\n", ""), re.MULTILINE):
        arguments = shlex.split(command, comments=True)[1:]
        result = CliRunner().invoke(cli.app, [*arguments, *IN_A_TEST.get(arguments[0], [])])
        assert result.exit_code == 0, f"{command}\n{result.output}{result.exception!r}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/integrations.md"])  # tests/ecosystem has all
def test_blocks_run(page, folder):
    namespace = {"check_shape": check_shape}
    for line, language, text in blocks(page):
        if language == "python":
            run_python(text, page, line, namespace)
        elif language != "text":
            assert language == "bash", f"{page}:{line}: nothing runs a block in {language}"
            run_commands(text)


@pytest.mark.slow
def test_blocks_left_what_they_promise(folder):
    """What README.md and the page of V-JEPA 2 say of their results, beyond shapes."""
    run_commands("\n".join(text for _, language, text in blocks("README.md") if language == "bash"))
    assert VJEPA2Config.from_pretrained("vjepa2-ssv2").id2label == CLASSES
    original, again = (torch.load(f"mine{name}.pt", weights_only=True) for name in ("", "-again"))
    for name, tensor in original["target_encoder"].items():
        assert name.endswith("pos_embed") or torch.equal(tensor, again["target_encoder"][name])
    with np.load("tokens.npz") as tokens:
        assert tokens["video.mp4"].shape == (8, 16, 16, HUB_WIDTH)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        path = (ROOT / page).parent / target
        assert "://" in target or path.exists() or path.with_suffix(".md").exists(), f"{page} links {target}"
    for name in re.findall(r"\[`~?([\w.]+)`\]|\[\[autodoc\]\] (\w+)", text):
        *modules, _ = parts = "".join(name).removeprefix("vidformers.").split(".")
        if modules and find_spec(f"vidformers.{modules[0]}"):
            import_module(f"vidformers.{modules[0]}")
        attrgetter(".".join(parts))(vidformers)


def test_pictures_are_small_and_all_are_shown():
    shown = {
        (ROOT / page).parent.joinpath(target).resolve()
        for page in PAGES
        for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / page).read_text("utf-8"))
    }
    pictures = {*(ROOT / "docs/images").iterdir()}
    assert shown == pictures
    assert max(path.stat().st_size for path in pictures) <= 100_000
    assert sum(path.stat().st_size for path in pictures) <= 1_000_000


def numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+", text.replace("²", "")))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_page_has_every_class_and_checkpoint(family):
    text = (ROOT / f"docs/model_doc/{family.model_type}.md").read_text("utf-8")
    documented = re.findall(r"^\[\[autodoc\]\] (\w+)$", text, re.MULTILINE)
    records = (family, *family.parts)
    processors = {name for record in records for name in (record.tokenizer_class, record.processor_class)}
    processors |= {family.video_processor_class, *family.image_processor_classes}
    processors |= {part.image_processor_class for part in family.parts}
    assert {*family.config_classes, *processors, *family.model_classes, *family.functions} - {None} == set(documented)
    rows = [row.split(" | ") for row in re.findall(r"^\| (.* \| .*) \|$", text, re.MULTILINE)]
    names = {preset.hub: name for name, preset in family.presets.items() if preset.hub}
    assert set(names) <= {row[0] for row in rows}
    rows = [(names.get(row[0], row[0].rpartition("/")[2]), *row[1:4]) for row in rows]
    rows = [row for row in rows if row[0] in family.presets]
    assert len(rows) > 0
    for name, size, clip, model_class in rows:
        assert [numbers(size), numbers(clip)] == [numbers(text) for text in describe(family, family.presets[name])]
        assert model_class == f"[`{family.presets[name].architecture}`]"


def test_pages_are_in_the_table_of_contents():
    listed = re.findall(r"local: (\S+)", (ROOT / "docs/_toctree.yml").read_text("utf-8"))
    assert sorted(f"docs/{name}.md" for name in listed) == [page for page in PAGES if page.startswith("docs/")]
