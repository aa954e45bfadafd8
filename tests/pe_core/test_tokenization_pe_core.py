"""PE core's tokenizer against the ids that the original's gave, on a small vocabulary."""

import gzip
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from vidformers import PeCoreTextConfig, PeCoreTokenizer
from vidformers.models.pe_core import tokenization_pe_core
from vidformers.models.pe_core.tokenization_pe_core import split_words


RECORDED = json.loads((Path(__file__).parents[1] / "assets/pe_core_tokens.json").read_text("utf-8"))
BOS, EOS = 512 + len(RECORDED["merges"]), 513 + len(RECORDED["merges"])


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    """The recorded merges as the original's repository holds them."""
    path = tmp_path_factory.mktemp("vocabulary") / "merges.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["#version", *RECORDED["merges"]]).encode()))
    return path


@pytest.fixture
def tokenizer(vocabulary) -> PeCoreTokenizer:
    return PeCoreTokenizer(vocabulary)


def ids(tokenizer: PeCoreTokenizer, texts: list[str]) -> list[list[int]]:
    """Ids without the zeros at their ends, as they are recorded."""
    padded = tokenizer(texts, padding="max_length", truncation=True)["input_ids"]
    assert {len(row) for row in padded} == {32}
    return [row[: 32 - next(i for i, number in enumerate(row[::-1]) if number)] for row in padded]


def test_ids_are_those_of_the_original(tokenizer):
    for text, wanted in [*RECORDED["cases"], *RECORDED["mojibake"]]:
        assert ids(tokenizer, [text]) == [wanted], repr(text)


def test_a_single_text_gives_a_single_row(tokenizer):
    row = tokenizer("a video")["input_ids"]
    assert row == tokenizer(["a video"])["input_ids"][0]
    assert (row[0], row[-1]) == (BOS, EOS)
    assert tokenizer("")["input_ids"] == [BOS, EOS]
    assert set(tokenizer("a video")) == {"input_ids"}


def test_cut_texts_keep_their_end(tokenizer):
    row = tokenizer("a b " * 40, truncation=True, max_length=9)["input_ids"]
    assert len(row) == 9 and (row[0], row[-1]) == (BOS, EOS)


def test_padding_is_zero_and_no_token_of_its_own(tokenizer):
    short, long = tokenizer(["!", "a b c d"], padding=True)["input_ids"]
    assert len(short) == len(long)
    assert short[3:] == [0] * (len(long) - 3)
    assert short[1] != 0  # an exclamation mark that ends a word has another number


def test_special_tokens_in_a_text_end_it_unless_signs_stand_before_them(tokenizer):
    assert split_words("a<end_of_text>") == ["a", "<end_of_text>"]
    assert split_words("!<END_OF_TEXT>") == ["!<", "end", "_", "of", "_", "text", ">"]
    assert tokenizer("a<end_of_text>")["input_ids"][-2:] == [EOS, EOS]
    assert EOS not in tokenizer("!<end_of_text>")["input_ids"][:-1]


def test_decoding_gives_the_words_back(tokenizer):
    row = tokenizer(["Hello, World!"], padding="max_length")["input_ids"][0]
    assert tokenizer.decode(row, skip_special_tokens=True) == "hello , world ! "
    assert tokenizer.decode(row[:3]).startswith("<start_of_text>")


def test_pairs_and_words_are_refused(tokenizer):
    with pytest.raises(ValueError, match="got pairs of texts or lists of words"):
        tokenizer("a", "b")
    with pytest.raises(ValueError, match="got pairs of texts or lists of words"):
        tokenizer(["a", "b"], is_split_into_words=True)


# ------------------------------------------------------------------------------------------------------------ files


def test_saved_and_loaded(tokenizer, tmp_path):
    PeCoreTextConfig().save_pretrained(tmp_path)
    tokenizer.model_max_length = 72
    tokenizer("a video", padding="max_length", truncation=True)  # leaves padding and cutting on in the backend
    tokenizer.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    assert written["padding"] is None and written["truncation"] is None
    texts = [text for text, _ in RECORDED["cases"]]
    for loaded in (PeCoreTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(loaded) is PeCoreTokenizer
        assert (loaded.model_max_length, loaded.pad_token_id, len(loaded)) == (72, 0, EOS + 1)
        assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]


def test_other_readers_of_the_file_get_plain_texts_right(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    plain = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("A video  of the model, isn't it!", "café 12", ""):
        assert plain.encode(text).ids == tokenizer(text)["input_ids"]


def test_a_tokenizer_json_of_clip_serves_as_well(tokenizer, tmp_path):
    """CLIP's own has other names for the two special tokens."""
    tokenizer.save_pretrained(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text("utf-8")
    text = text.replace("<start_of_text>", "<|startoftext|>").replace("<end_of_text>", "<|endoftext|>")
    (tmp_path / "clip.json").write_text(text, "utf-8")
    loaded = PeCoreTokenizer(tokenizer_file=tmp_path / "clip.json")
    assert loaded("a video")["input_ids"] == tokenizer("a video")["input_ids"]


def test_an_unpacked_list_serves_as_well(tokenizer, vocabulary, tmp_path):
    (tmp_path / "merges.txt").write_bytes(gzip.decompress(vocabulary.read_bytes()) + b"\n")
    assert PeCoreTokenizer(tmp_path / "merges.txt")("a video")["input_ids"] == tokenizer("a video")["input_ids"]


def test_lines_beyond_the_original_s_vocabulary_are_not_read(monkeypatch, vocabulary):
    monkeypatch.setattr(tokenization_pe_core, "MOST_MERGES", 10)
    assert len(PeCoreTokenizer(vocabulary)) == 512 + 10 + 2


BAD_FILES = {
    "not packed": ("merges.gz", b"\x1f\x8b broken", "cannot be read as a list of merges"),
    "no text": ("merges.txt", b"\xff\xfe", "cannot be read as a list of merges"),
    "three pieces": ("merges.txt", b"#version\na b c", r"expected merges of two known pieces each.*\('a', 'b', 'c'\)"),
    "unknown piece": ("merges.txt", b"#version\nab c", r"expected merges of two known pieces each.*\('ab', 'c'\)"),
    "empty": ("merges.txt", b"#version\n", "holds no merges"),
    "no json": ("tokenizer.json", b"{", "is no tokenizer.json of a byte-pair vocabulary"),
    "no pairs": ("tokenizer.json", b'{"model": {"type": "Unigram"}}', "is no tokenizer.json of a byte-pair"),
    "other words": (
        "tokenizer.json",
        b'{"model": {"merges": [], "end_of_word_suffix": ""}}',
        "expected words to end in '</w>', got ''",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_no_vocabulary(tmp_path, name):
    file, content, message = BAD_FILES[name]
    (tmp_path / file).write_bytes(content)
    kind = "tokenizer_file" if file.endswith(".json") else "vocab_file"
    with pytest.raises(ValueError, match=f"{file}: {message}"):
        PeCoreTokenizer(**{kind: tmp_path / file})


def test_without_a_file():
    with pytest.raises(ValueError, match="got neither"):
        PeCoreTokenizer()
