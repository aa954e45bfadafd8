"""VideoPrism's tokenizer against sentencepiece, on models that are trained here and on the recorded ids."""

import json
import os
import random
import struct
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerFast

from tests.text_files import RAW_TEXTS, TEXTS, reference_ids, sentencepiece_model, t5_model
from vidformers import VideoPrismConfig, VideoPrismTextConfig, VideoPrismTokenizer
from vidformers.models.videoprism.tokenization_videoprism import CharacterMap, canonicalize_text


GOLDENS = Path(os.environ.get("VIDFORMERS_GOLDENS", "")) / "videoprism/tokenization"
needs_goldens = pytest.mark.skipif(
    not GOLDENS.is_dir(), reason="VIDFORMERS_GOLDENS names no folder with VideoPrism's tokenization"
)
MODELS = {
    "begin token": sentencepiece_model,
    "as T5": t5_model,
    "other characters": lambda: sentencepiece_model(normalization_rule_name="nfkc_cf"),
    "no character map": lambda: sentencepiece_model(normalization_rule_name="identity"),
}
models = pytest.mark.parametrize("kind", MODELS)


def write(folder: Path, model: bytes) -> Path:
    path = folder / "spiece.model"
    path.write_bytes(model)
    return path


def ids(tokenizer: VideoPrismTokenizer, texts: list[str], max_length: int) -> list[list[int]]:
    return tokenizer(texts, padding="max_length", truncation=True, max_length=max_length)["input_ids"]


# ----------------------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Hello,  World!", "hello world."),
        ("", "."),
        ("  A DOG -- running (fast)?!", "a dog running fast."),
        ("tab\tand\nnewline\u00a0nbsp", "tab and newline nbsp."),
        ("ΣΊΣΥΦΟΣ", "σίσυφος."),
        ("“curly” … ＃", "“curly” … ＃."),
    ],
)
def test_canonical_text(text, canonical):
    assert canonicalize_text(text) == canonical


@models
@pytest.mark.parametrize("max_length", [12, 64])
@pytest.mark.parametrize("canonicalize", [True, False])
def test_ids_are_those_of_sentencepiece(tmp_path, kind, max_length, canonicalize):
    model = MODELS[kind]()
    tokenizer = VideoPrismTokenizer(write(tmp_path, model), canonicalize=canonicalize)
    texts = TEXTS if canonicalize else RAW_TEXTS
    prepared = [canonicalize_text(text) if canonicalize else text for text in texts]
    assert ids(tokenizer, texts, max_length) == [reference_ids(model, text, max_length) for text in prepared]


@models
def test_ids_of_random_characters(tmp_path, kind):
    """Combining marks, full-width forms, emoji sequences, controls: where graphemes and characters differ."""
    model = MODELS[kind]()
    tokenizer = VideoPrismTokenizer(write(tmp_path, model), canonicalize=False)
    ranges = [
        (32, 127),
        (0xA0, 0x250),
        (0x300, 0x370),
        (0xFF00, 0xFFF0),
        (0x1F600, 0x1F650),
        (0x2000, 0x2070),
        (9, 14),
    ]
    generator = random.Random(0)
    for _ in range(500):
        chosen = generator.sample(ranges, 2)
        text = "".join(chr(generator.randrange(*generator.choice(chosen))) for _ in range(generator.randrange(1, 20)))
        expected = reference_ids(model, text, 64)
        assert tokenizer(text, padding="max_length", max_length=64)["input_ids"] == expected, ascii(text)


def test_padding_is_masked_by_length_not_by_id(tmp_path):
    """In this model 0 is the unknown piece, which may stand in a text."""
    tokenizer = VideoPrismTokenizer(write(tmp_path, sentencepiece_model()))
    encoded = tokenizer(["日 dog", "a dog is jumping in the park"], padding=True)
    assert tokenizer.pad_token_id == tokenizer.unk_token_id == 0
    assert 0 in encoded["input_ids"][0][: sum(encoded["attention_mask"][0])]
    assert encoded["attention_mask"][0] == sorted(encoded["attention_mask"][0], reverse=True)


def test_defaults(tmp_path):
    tokenizer = VideoPrismTokenizer(write(tmp_path, t5_model()))
    assert (tokenizer.bos_token, tokenizer.eos_token) == (None, "</s>")
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    encoded = tokenizer(["a dog runs"], padding="max_length", truncation=True)
    assert set(encoded) == {"input_ids", "attention_mask"} and len(encoded["input_ids"][0]) == 64
    assert tokenizer.eos_token_id not in encoded["input_ids"][0]
    assert tokenizer.decode(encoded["input_ids"][0], skip_special_tokens=True) == "a dog runs."


def test_begin_token_can_be_left_out(tmp_path):
    model = sentencepiece_model()
    tokenizer = VideoPrismTokenizer(write(tmp_path, model), add_bos_token=False)
    expected = [reference_ids(model, canonicalize_text(text), 64, bos=False) for text in TEXTS]
    assert ids(tokenizer, TEXTS, 64) == expected
    tokenizer.save_pretrained(tmp_path / "saved")
    assert ids(VideoPrismTokenizer.from_pretrained(tmp_path / "saved"), TEXTS, 64) == expected


def test_all_ways_to_encode_prepare_the_text(tmp_path):
    tokenizer = VideoPrismTokenizer(write(tmp_path, t5_model()))
    plain = tokenizer("a dog runs.")["input_ids"]
    assert tokenizer("A dog, runs!!")["input_ids"] == tokenizer.encode("A dog, runs!!") == plain
    assert tokenizer.tokenize("A DOG runs") == tokenizer.convert_ids_to_tokens(plain)
    assert tokenizer(("A DOG runs",))["input_ids"] == [plain]
    assert tokenizer("A DOG", "RUNS")["input_ids"] == tokenizer("a dog")["input_ids"] + tokenizer("runs")["input_ids"]


# ------------------------------------------------------------------------------------------------ files and classes


@models
@pytest.mark.parametrize("canonicalize", [True, False])
def test_saved_and_loaded(tmp_path, kind, canonicalize):
    tokenizer = VideoPrismTokenizer(write(tmp_path, MODELS[kind]()), canonicalize=canonicalize)
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = VideoPrismTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded.canonicalize is canonicalize and len(loaded) == len(tokenizer)
    assert loaded.special_tokens_map == tokenizer.special_tokens_map
    assert ids(loaded, RAW_TEXTS, 64) == ids(tokenizer, RAW_TEXTS, 64)
    other = VideoPrismTokenizer.from_pretrained(tmp_path / "saved", canonicalize=not canonicalize)
    expected = VideoPrismTokenizer(tmp_path / "spiece.model", canonicalize=not canonicalize)
    assert len(other) == len(expected) and ids(other, RAW_TEXTS, 64) == ids(expected, RAW_TEXTS, 64)


def test_the_saved_file_works_by_itself(tmp_path):
    """Other readers of tokenizer.json get the same ids for canonical text, characters mapped."""
    tokenizer = VideoPrismTokenizer(write(tmp_path, sentencepiece_model()))
    tokenizer.save_pretrained(tmp_path / "saved")
    alone = Tokenizer.from_file(str(tmp_path / "saved/tokenizer.json"))
    for text in ("A dog runs", "ｆｕｌｌ wave ① ﬁne", "café"):
        assert alone.encode(canonicalize_text(text)).ids == tokenizer(text)["input_ids"]
    assert tokenizer("ｆｕｌｌ")["input_ids"] == tokenizer("full")["input_ids"]


def test_directories_of_transformers(tmp_path):
    """transformers builds another pipeline on the same vocabulary; ours takes the vocabulary."""
    from transformers.models.videoprism.tokenization_videoprism import VideoPrismTokenizer as Stock

    ours = VideoPrismTokenizer(write(tmp_path, t5_model()))
    stock = Stock.from_pretrained(tmp_path / "ours") if ours.save_pretrained(tmp_path / "ours") else None
    stock.save_pretrained(tmp_path / "theirs")
    loaded = VideoPrismTokenizer.from_pretrained(tmp_path / "theirs")
    assert ids(loaded, TEXTS, 64) == ids(ours, TEXTS, 64)
    canonical = [canonicalize_text(text) for text in TEXTS if text.isascii()]
    assert ids(stock, canonical, 64) == ids(ours, canonical, 64)


@pytest.mark.parametrize("named", [True, False])
def test_auto_tokenizer(tmp_path, named):
    VideoPrismTextConfig().save_pretrained(tmp_path)
    tokenizer = VideoPrismTokenizer(write(tmp_path, t5_model()))
    tokenizer.save_pretrained(tmp_path)
    if not named:
        (tmp_path / "tokenizer_config.json").unlink()
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is VideoPrismTokenizer
    assert ids(loaded, TEXTS, 64) == ids(tokenizer, TEXTS, 64)


def rename(folder: Path, name: str) -> None:
    """Let a tokenizer's settings name another class, and the processor that it was saved with."""
    path = folder / "tokenizer_config.json"
    named = {"tokenizer_class": name, "processor_class": "VideoPrismProcessor"}
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **named}), "utf-8")


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "T5Tokenizer", "VideoPrismTokenizer"])
@pytest.mark.parametrize("config_class", [VideoPrismTextConfig, VideoPrismConfig])
def test_generic_names(tmp_path, name, config_class):
    """Texts are made canonical whatever the settings name; `AutoProcessor` of a text tower gives the tokenizer."""
    config_class().save_pretrained(tmp_path)
    tokenizer = VideoPrismTokenizer(write(tmp_path, t5_model()))
    tokenizer.save_pretrained(tmp_path)
    rename(tmp_path, name)
    autos = (AutoTokenizer, AutoProcessor) if config_class is VideoPrismTextConfig else (AutoTokenizer,)
    for auto_class in autos:
        loaded = auto_class.from_pretrained(tmp_path)
        assert type(loaded) is VideoPrismTokenizer
        assert ids(loaded, TEXTS, 64) == ids(tokenizer, TEXTS, 64)


def test_other_vocabularies_are_warned_of(tmp_path, caplog):
    """A directory's own tokenizer loads, and it is said that nothing makes texts canonical."""
    VideoPrismTextConfig().save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({"a": 0, "dog": 1}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="a").save_pretrained(tmp_path)
    with caplog.at_level("WARNING", logger="transformers"):
        loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert not isinstance(loaded, VideoPrismTokenizer)
    assert "VideoPrismTokenizer can't read this directory" in caplog.text


def test_a_directory_with_the_sentencepiece_model_alone(tmp_path):
    model = t5_model()
    write(tmp_path, model)
    loaded = VideoPrismTokenizer.from_pretrained(tmp_path)
    assert ids(loaded, TEXTS, 64) == [reference_ids(model, canonicalize_text(text), 64) for text in TEXTS]


# ------------------------------------------------------------------------------------------------------- bad input


def test_no_file():
    with pytest.raises(ValueError, match="got neither"):
        VideoPrismTokenizer()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"model_type": "bpe"}, "is no unigram model"),
        ({"byte_fallback": True, "vocab_size": 400}, "has pieces that are byte, falls back to bytes"),
        ({"user_defined_symbols": ["<b>"]}, "has pieces that are user-defined"),
        ({"treat_whitespace_as_suffix": True}, "puts the space after words"),
        ({"add_dummy_prefix": False}, "treats spaces in a way of its own"),
        ({"remove_extra_whitespaces": False}, "treats spaces in a way of its own"),
    ],
)
def test_models_of_another_kind(tmp_path, settings, complaint):
    settings = {name: ",".join(value) if isinstance(value, list) else value for name, value in settings.items()}
    path = write(tmp_path, sentencepiece_model(**settings))
    with pytest.raises(ValueError, match=f"spiece.model: {complaint}; VideoPrism takes unigram models"):
        VideoPrismTokenizer(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\n\xff\xff\xff\xff\x7f", sentencepiece_model()[:-200]])
def test_files_that_are_no_model(tmp_path, content):
    with pytest.raises(ValueError, match="spiece.model: is no sentencepiece model"):
        VideoPrismTokenizer(write(tmp_path, content))


def test_without_protobuf(tmp_path, monkeypatch):
    """Only a sentencepiece model needs it."""
    VideoPrismTokenizer(write(tmp_path, t5_model())).save_pretrained(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "google.protobuf.message", None)
    with pytest.raises(ImportError, match="spiece.model: .*pip install protobuf"):
        VideoPrismTokenizer(tmp_path / "spiece.model")
    assert VideoPrismTokenizer.from_pretrained(tmp_path / "saved")("a dog")["input_ids"]


@pytest.mark.parametrize("content", ["", "{}", '{"model": {"type": "Unigram"}}', '{"model": 3}'])
def test_files_that_are_no_tokenizer(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="tokenizer.json: is no readable tokenizer.json"):
        VideoPrismTokenizer(tokenizer_file=tmp_path / "tokenizer.json")


def test_words_instead_of_texts(tmp_path):
    tokenizer = VideoPrismTokenizer(write(tmp_path, t5_model()))
    with pytest.raises(ValueError, match="Expected texts, got lists of words"):
        tokenizer(["a", "dog"], is_split_into_words=True)


def test_the_longest_match_is_replaced(tmp_path):
    characters = VideoPrismTokenizer(write(tmp_path, sentencepiece_model()))._characters
    assert characters.apply("ﾊﾞﾊ e\u0301e ①") == "バハ \u00e9e 1"


def test_an_empty_character_map_changes_nothing():
    assert CharacterMap(b"").apply("ｖ①") == "ｖ①"
    assert CharacterMap(struct.pack("<I", 0)).apply("ｖ①") == "ｖ①"


# --------------------------------------------------------------------------------------------------------- goldens


@needs_goldens
@pytest.mark.parametrize("run", range(8))
def test_recorded_ids(tmp_path, run):
    recorded = json.loads((GOLDENS / "tokenization.json").read_text())
    settings = recorded["runs"][run]
    options = {} if settings["add_bos"] is None else {"add_bos_token": settings["add_bos"]}
    tokenizer = VideoPrismTokenizer(GOLDENS / recorded["spm_model"], canonicalize=settings["canonicalize"], **options)
    tokenizer.save_pretrained(tmp_path)
    assert [canonicalize_text(text) for text in recorded["texts"]] == recorded["canonicalized"]
    for each in (tokenizer, VideoPrismTokenizer.from_pretrained(tmp_path)):
        encoded = each(recorded["texts"], padding="max_length", truncation=True, max_length=settings["max_length"])
        assert encoded["input_ids"] == settings["ids"]
        assert [[1 - value for value in row] for row in encoded["attention_mask"]] == settings["paddings"]
