"""Code that others published runs on our classes: the calls of model cards and of Transformers' pages, in their order.

Each test names the page whose calls it makes. The names of repositories are those of folders with tiny models, written
as the repositories have them; videos and images come from a server on this machine. Names that are imported from
transformers are ours by `register(names=True)`.
"""

import functools
import json
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoTokenizer

import vidformers
from tests.harness.parity import COMMITTED
from tests.text_files import save_modernbert_tokenizer, t5_model
from tests.torchcodec_stand_in import provide_torchcodec
from tests.video_files import picture, write_video


pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("snippets")]

WIDTH = 32
TINY = {"hidden_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 64}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
LLAVA = {"video_processor_type": "LlavaOnevisionVideoProcessor", "size": {"height": 288, "width": 288}, "resample": 3}
LABELS = {index: f"something {index}" for index in range(20)}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> Path:
    """A folder with the repositories that the pages name, in the form in which they are published."""
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    save_vjepa2(folder / "facebook")
    save_videomae(folder)
    save_videoprism(folder / "google")
    save_pe_av(folder / "facebook/pe-av-large")
    (folder / "files").mkdir()
    write_video(folder / "files/video.mp4", num_frames=70)
    Image.fromarray(picture(0, 300, 400)).save(folder / "files/image.jpg")
    return folder


def save_vjepa2(folder: Path) -> None:
    settings = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": {"height": 64, "width": 64}}
    shape = {"hidden_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2, "crop_size": 64}
    predictor = {"pred_hidden_size": 24, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    models = {
        "fpc64-256": vidformers.VJEPA2Model(vidformers.VJEPA2Config(**shape, **predictor)),
        "fpc16-256-ssv2": vidformers.VJEPA2ForVideoClassification(
            vidformers.VJEPA2Config(**shape, **predictor, frames_per_clip=16, id2label=LABELS)
        ),
    }
    for name, model in models.items():
        write(folder / f"vjepa2-vitl-{name}", model, video_preprocessor_config=settings)


def save_videomae(folder: Path) -> None:
    settings = {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 224}, "do_resize": True}
    settings |= {"crop_size": {"height": 224, "width": 224}, **IMAGENET}
    decoder = {f"decoder_{name}": value for name, value in TINY.items()}
    config = vidformers.VideoMAEConfig(**TINY, **decoder, use_mean_pooling=False)
    write(folder / "MCG-NJU/videomae-base", vidformers.VideoMAEForPreTraining(config), preprocessor_config=settings)
    config = vidformers.VideoMAEConfig(**TINY, id2label=LABELS)
    classifier = vidformers.VideoMAEForVideoClassification(config)
    write(folder / "MCG-NJU/videomae-base-finetuned-kinetics", classifier, preprocessor_config=settings)
    second = folder / "OpenGVLab/VideoMAEv2-Base"
    shutil.copytree(COMMITTED / "videomae_v2/hub_directory", second)
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    (second / "preprocessor_config.json").write_text(json.dumps({**settings, **sizes}))


def save_videoprism(folder: Path) -> None:
    vision = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 64}
    vision |= {"num_spatial_layers": 1, "num_temporal_layers": 1}
    tower = vidformers.VideoPrismVisionModel(vidformers.VideoPrismVisionConfig(**vision))
    write(folder / "videoprism-base-f16r288", tower, video_preprocessor_config=LLAVA)
    config = vidformers.VideoPrismConfig(vision_config=vision, text_config={**TINY, "vocab_size": 150})
    both = folder / "videoprism-lvt-base-f16r288"
    write(both, vidformers.VideoPrismClipModel(config), video_preprocessor_config=LLAVA)
    (both / "spiece.model").write_bytes(t5_model())
    vidformers.VideoPrismTokenizer(both / "spiece.model").save_pretrained(both)


def save_pe_av(folder: Path) -> None:
    """A directory of Transformers' audio-video model, which holds PE Video."""
    block = {**TINY, "head_dim": 16}
    vision = {**TINY, "projection_dim": WIDTH}
    text = {**TINY, "model_type": "modernbert", "vocab_size": 60}
    text |= {f"{name}_token_id": index for index, name in enumerate(("pad", "cls", "sep", "bos", "eos"))}
    codec = {"encoder_hidden_size": 2, "downsampling_ratios": [2], "decoder_hidden_size": 8, "n_codebooks": 2}
    both = {
        **block,
        "video_config": {**block, "vision_config": vision},
        "audio_config": {**block, "dac_config": codec},
    }
    config = transformers.PeAudioVideoConfig(text_config=text, audio_video_config=both)
    transformers.PeAudioVideoModel(config).save_pretrained(folder)
    save_modernbert_tokenizer(folder)
    parts = transformers.PeAudioFeatureExtractor(), vidformers.PeVideoVideoProcessor()
    transformers.PeAudioVideoProcessor(*parts, AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)


def write(folder: Path, model, **settings: dict) -> None:
    """A directory with a model's weights, and JSON files."""
    model.save_pretrained(folder)
    for name, content in settings.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def address(repositories) -> str:
    """Of the folder's files, at a server on this machine."""
    handler = functools.partial(QuietHandler, directory=repositories / "files")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module", autouse=True)
def names_are_ours():
    vidformers.register(names=True)
    yield
    vidformers.unregister()


@pytest.fixture(autouse=True)
def repositories_are_found(repositories, monkeypatch):
    monkeypatch.chdir(repositories)


@pytest.fixture
def torchcodec(monkeypatch):
    provide_torchcodec(monkeypatch)


def is_ours(*objects) -> bool:
    return all(type(each).__module__.startswith("vidformers.") for each in objects)


def random_clip() -> list[np.ndarray]:
    return list(np.random.default_rng(0).standard_normal((16, 3, 224, 224)))


# ------------------------------------------------------------------------------------------------------- V-JEPA 2


def test_vjepa2_card_embeds_a_video_and_an_image(address, torchcodec):
    """https://huggingface.co/facebook/vjepa2-vitl-fpc64-256"""
    from torchcodec.decoders import VideoDecoder
    from transformers import AutoModel, AutoVideoProcessor
    from transformers.image_utils import load_image

    repo = "facebook/vjepa2-vitl-fpc64-256"
    model = AutoModel.from_pretrained(repo)
    processor = AutoVideoProcessor.from_pretrained(repo)
    clip = VideoDecoder(f"{address}/video.mp4").get_frames_at(indices=np.arange(0, 64)).data
    clip = processor(clip, return_tensors="pt").to(model.device)
    with torch.no_grad():
        of_video = model.get_vision_features(**clip)
    assert is_ours(model, processor) and of_video.shape == (1, 32 * 16, WIDTH)

    still = processor(load_image(f"{address}/image.jpg"), return_tensors="pt").to(model.device)["pixel_values_videos"]
    with torch.no_grad():
        of_image = model.get_vision_features(still.repeat(1, 16, 1, 1, 1))
    assert of_image.shape == (1, 8 * 16, WIDTH)


def test_vjepa2_page_runs_encoder_and_predictor(address, torchcodec):
    """https://huggingface.co/docs/transformers/model_doc/vjepa2, the first example"""
    from torchcodec.decoders import VideoDecoder
    from transformers import AutoModel, AutoVideoProcessor

    processor = AutoVideoProcessor.from_pretrained("facebook/vjepa2-vitl-fpc64-256")
    model = AutoModel.from_pretrained(
        "facebook/vjepa2-vitl-fpc64-256", dtype=torch.float16, device_map="auto", attn_implementation="sdpa"
    )
    clip = VideoDecoder(f"{address}/video.mp4").get_frames_at(indices=np.arange(0, 64)).data
    clip = processor(clip, return_tensors="pt").to(model.device)
    outputs = model(**clip)
    assert is_ours(model, processor) and outputs.last_hidden_state.dtype == torch.float16
    assert outputs.last_hidden_state.shape == outputs.predictor_output.last_hidden_state.shape == (1, 32 * 16, WIDTH)


def test_vjepa2_page_classifies(address, torchcodec):
    """https://huggingface.co/docs/transformers/model_doc/vjepa2, the second example; it takes every eighth frame"""
    from torchcodec.decoders import VideoDecoder
    from transformers import AutoModelForVideoClassification, AutoVideoProcessor

    repo = "facebook/vjepa2-vitl-fpc16-256-ssv2"
    model = AutoModelForVideoClassification.from_pretrained(repo, device_map="auto")
    processor = AutoVideoProcessor.from_pretrained(repo)
    chosen = np.arange(0, model.config.frames_per_clip, 8)
    inputs = processor(VideoDecoder(f"{address}/video.mp4").get_frames_at(indices=chosen).data, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs.to(model.device)).logits
    best = logits.topk(5).indices[0]
    shares = torch.softmax(logits, dim=-1).topk(5).values[0]
    assert is_ours(model, processor) and shares.sum() < 1
    assert {model.config.id2label[index.item()] for index in best} <= set(LABELS.values())


def test_vjepa2_docstring_trains():
    """https://huggingface.co/docs/transformers/model_doc/vjepa2, `VJEPA2ForVideoClassification.forward`"""
    from transformers import AutoVideoProcessor, VJEPA2ForVideoClassification

    video_processor = AutoVideoProcessor.from_pretrained("facebook/vjepa2-vitl-fpc16-256-ssv2")
    model = VJEPA2ForVideoClassification.from_pretrained("facebook/vjepa2-vitl-fpc16-256-ssv2").to("cpu")
    inputs = video_processor(np.ones((64, 256, 256, 3)), return_tensors="pt").to("cpu")
    with torch.no_grad():
        label = model.config.id2label[model(**inputs).logits.argmax(-1).item()]
    assert is_ours(model) and label in LABELS.values()
    assert model(**inputs, labels=torch.ones(1, dtype=torch.long)).loss > 0


# ------------------------------------------------------------------------------------------------------- VideoMAE


@pytest.mark.parametrize("processor_class", ["VideoMAEImageProcessor", "AutoImageProcessor"])
def test_videomae_card_predicts_hidden_patches(processor_class):
    """https://huggingface.co/MCG-NJU/videomae-base; with the Auto class the docstring of `VideoMAEForPreTraining`"""
    from transformers import VideoMAEForPreTraining

    num_frames, video = 16, random_clip()
    processor = getattr(transformers, processor_class).from_pretrained("MCG-NJU/videomae-base")
    model = VideoMAEForPreTraining.from_pretrained("MCG-NJU/videomae-base")
    pixel_values = processor(video, return_tensors="pt").pixel_values
    patches_of_a_frame = (model.config.image_size // model.config.patch_size) ** 2
    seq_length = (num_frames // model.config.tubelet_size) * patches_of_a_frame
    bool_masked_pos = torch.randint(0, 2, (1, seq_length)).bool()
    outputs = model(pixel_values, bool_masked_pos=bool_masked_pos)
    assert is_ours(model, processor) and outputs.loss.isfinite()


@pytest.mark.parametrize("processor_class", ["VideoMAEFeatureExtractor", "VideoMAEImageProcessor"])
def test_videomae_card_classifies(processor_class):
    """https://huggingface.co/MCG-NJU/videomae-base-finetuned-kinetics, before and after its class was renamed"""
    from transformers import VideoMAEForVideoClassification

    processor = getattr(transformers, processor_class).from_pretrained("MCG-NJU/videomae-base-finetuned-kinetics")
    model = VideoMAEForVideoClassification.from_pretrained("MCG-NJU/videomae-base-finetuned-kinetics")
    inputs = processor(random_clip(), return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    assert is_ours(model, processor) and model.config.id2label[logits.argmax(-1).item()] in LABELS.values()


def test_videomae_docstring_gives_features():
    """https://huggingface.co/docs/transformers/model_doc/videomae, `VideoMAEModel.forward`"""
    from transformers import VideoMAEModel, VideoMAEVideoProcessor

    video_processor = VideoMAEVideoProcessor.from_pretrained("MCG-NJU/videomae-base")
    model = VideoMAEModel.from_pretrained("MCG-NJU/videomae-base")
    inputs = video_processor("files/video.mp4", return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    assert is_ours(model, video_processor) and list(outputs.last_hidden_state.shape) == [1, 1568, WIDTH]


def test_videomae_page_loads_in_half_precision():
    """https://huggingface.co/docs/transformers/model_doc/videomae, "Using Scaled Dot Product Attention" """
    from transformers import VideoMAEForVideoClassification

    model = VideoMAEForVideoClassification.from_pretrained(
        "MCG-NJU/videomae-base-finetuned-kinetics", attn_implementation="sdpa", dtype=torch.float16
    )
    assert is_ours(model) and model.dtype == torch.float16 and model.config._attn_implementation == "sdpa"


def test_video_classification_guide_begins_a_fine_tuning():
    """https://huggingface.co/docs/transformers/tasks/video_classification"""
    from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessor

    label2id = {"Archery": 0, "BenchPress": 1}
    id2label = {index: label for label, index in label2id.items()}
    image_processor = VideoMAEImageProcessor.from_pretrained("MCG-NJU/videomae-base")
    model = VideoMAEForVideoClassification.from_pretrained(
        "MCG-NJU/videomae-base", label2id=label2id, id2label=id2label, ignore_mismatched_sizes=True
    )
    assert {"image_mean": [*image_processor.image_mean], "image_std": [*image_processor.image_std]} == IMAGENET
    assert "shortest_edge" in image_processor.size and image_processor.size["shortest_edge"] == 224
    clip = torch.randn(model.config.num_channels, model.config.num_frames, 224, 224)  # as PyTorchVideo gives it
    inputs = {"pixel_values": clip.permute(1, 0, 2, 3).unsqueeze(0), "labels": torch.tensor([1])}
    assert is_ours(model, image_processor) and model(**inputs).logits.shape == (1, 2)


def test_videomae_v2_card_gives_a_feature():
    """https://huggingface.co/OpenGVLab/VideoMAEv2-Base, whose code takes channels before frames"""
    from transformers import AutoConfig, AutoModel, VideoMAEImageProcessor

    config = AutoConfig.from_pretrained("OpenGVLab/VideoMAEv2-Base", trust_remote_code=True)
    processor = VideoMAEImageProcessor.from_pretrained("OpenGVLab/VideoMAEv2-Base")
    model = AutoModel.from_pretrained("OpenGVLab/VideoMAEv2-Base", config=config, trust_remote_code=True)
    inputs = processor(random_clip()[:8], return_tensors="pt")
    frames_first = inputs["pixel_values"]
    inputs["pixel_values"] = inputs["pixel_values"].permute(0, 2, 1, 3, 4)
    with torch.no_grad():
        outputs = model(**inputs)
        assert torch.equal(outputs.pooler_output, model(frames_first).pooler_output)
    assert is_ours(model, processor)


# ----------------------------------------------------------------------------------------------------- VideoPrism


def test_videoprism_page_encodes_a_video(address):
    """https://huggingface.co/docs/transformers/model_doc/videoprism"""
    from transformers import AutoModel, AutoVideoProcessor

    processor = AutoVideoProcessor.from_pretrained("google/videoprism-base-f16r288", revision="refs/pr/4")
    model = AutoModel.from_pretrained("google/videoprism-base-f16r288", revision="refs/pr/4", device_map="auto")
    inputs = processor(videos=[f"{address}/video.mp4"], return_metadata=True, do_sample_frames=True)
    assert len(inputs["video_metadata"][0].frames_indices) == 16
    outputs = model(inputs["pixel_values_videos"].to(model.device))
    assert is_ours(model, processor) and outputs.last_hidden_state.shape == (1, 16 * 256, WIDTH)


def test_videoprism_docstrings_embed_texts_and_videos():
    """https://huggingface.co/docs/transformers/model_doc/videoprism, two methods of `VideoPrismClipModel`"""
    from transformers import AutoTokenizer, VideoPrismClipModel, VideoPrismProcessor

    model = VideoPrismClipModel.from_pretrained("google/videoprism-lvt-base-f16r288")
    tokenizer = AutoTokenizer.from_pretrained("google/videoprism-lvt-base-f16r288")
    texts = tokenizer(["a video of a cat.", "a video of a dog."], padding="max_length", return_tensors="pt")
    with torch.no_grad():
        of_texts = model.get_text_features(**texts)
    processor = VideoPrismProcessor.from_pretrained("google/videoprism-lvt-base-f16r288")
    with torch.no_grad():
        of_video = model.get_video_features(**processor(videos="files/video.mp4", return_tensors="pt"))
    assert is_ours(model, tokenizer, processor)
    assert (of_video.pooler_output @ of_texts.pooler_output.T).shape == (1, 2)


# ------------------------------------------------------------------------------------------------------- PE Video


def test_pe_video_page_compares_a_video_with_labels(address):
    """https://huggingface.co/docs/transformers/model_doc/pe_video"""
    from transformers import AutoProcessor, PeVideoModel
    from transformers.video_utils import load_video

    processor = AutoProcessor.from_pretrained("facebook/pe-av-large")
    model = PeVideoModel.from_pretrained("facebook/pe-av-large", device_map="auto")
    video, _ = load_video(f"{address}/video.mp4")
    labels = ["a person playing tennis", "a person cooking", "a cat sleeping"]
    video_inputs = processor.video_processor(video, num_frames=16, return_tensors="pt").to(model.device)
    text_inputs = processor.tokenizer(labels, padding=True, return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(**{**video_inputs, **text_inputs})
    probabilities = outputs.logits_video_text.sigmoid()
    assert is_ours(model, processor.video_processor)
    assert {label: share.item() for label, share in zip(labels, probabilities[0])}.keys() == set(labels)


def test_pe_av_processor_takes_everything_at_once():
    """https://huggingface.co/facebook/pe-av-large; noise stands for the sound of its files"""
    from transformers import PeAudioVideoModel, PeAudioVideoProcessor

    model = PeAudioVideoModel.from_pretrained("facebook/pe-av-large")
    processor = PeAudioVideoProcessor.from_pretrained("facebook/pe-av-large")
    files, descriptions = ["files/video.mp4"] * 2, ["A woman and a man speaking", "A glass breaking"]
    sounds = [np.random.default_rng(seed).standard_normal(4800).astype(np.float32) for seed in range(2)]
    inputs = processor(videos=files, text=descriptions, audio=sounds, return_tensors="pt", padding=True)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(**inputs.to("cpu"))
    assert is_ours(model.video_model, processor.video_processor)
    assert (outputs.video_embeds @ outputs.text_video_embeds.T).shape == (2, 2)
