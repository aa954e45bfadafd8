"""Tokenizer of VideoPrism's text tower: that of google-deepmind/videoprism (d481d91b), on `tokenizers`.

The original hands canonical text to a sentencepiece unigram model. Conversion reads the file of such a model once;
what runs is the `tokenizer.json` that it saves.

    raw text → canonical text → character map → "▁a▁dog▁runs." → best pieces → [bos] ids
"""

import base64
import json
import os
import string
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import Unigram
from transformers.convert_slow_tokenizer import import_protobuf
from transformers.tokenization_utils_tokenizers import TokenizersBackend


SPACE = "▁"
NONCHARACTER = "\uffff"
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token")
_NO_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " "))


def canonicalize_text(text: str) -> str:
    """Lower case, ASCII punctuation as spaces, one space between words, and a full stop at the end.

    "Hello,  World!" becomes "hello world.", "" becomes "." (`canonicalize_text` of the original's utils.py).
    """
    return " ".join(text.translate(_NO_PUNCTUATION).lower().split()) + "."


class VideoPrismTokenizer(TokenizersBackend):
    """Text to token ids, as `tokenize_texts` of the original does it.

    Text is made canonical first: see [`canonicalize_text`]. No end token is added, a begin token only if the model has
    one, and 0 pads. `tokenizer(texts, padding="max_length", truncation=True)` gives 64 ids a text, the original's
    default; ids of truncated texts keep the begin token.

    Args:
        vocab_file: a sentencepiece unigram model, `spiece.model` in a directory. Reading it needs the package
            protobuf.
        tokenizer_file: a `tokenizer.json`, which wins over `vocab_file`; its vocabulary and character map are used.
        canonicalize: False takes text as it is, for tokenizers that were trained on other text.
        add_bos_token: whether ids begin with the begin token; by default if there is one.

    All other arguments are those of `transformers.TokenizersBackend`. Special tokens in a text are text, as in
    sentencepiece, unless `split_special_tokens=False`.

    Raises:
        ImportError: a sentencepiece model without the package protobuf.
        ValueError: no file is given, or one that is no unigram model with sentencepiece's default treatment of spaces.
    """

    vocab_files_names = {"vocab_file": "spiece.model", "tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        tokenizer_file: str | os.PathLike | None = None,
        canonicalize: bool = True,
        **kwargs,
    ):
        if tokenizer_file is not None:
            vocabulary = _read_json(Path(tokenizer_file))
        elif vocab_file is not None:
            vocabulary = _read_sentencepiece(Path(vocab_file))
        else:
            raise ValueError(
                "Expected vocab_file (a sentencepiece model) or tokenizer_file (a tokenizer.json), got neither. "
                "`vidformers convert … --tokenizer FILE` writes a directory that has one."
            )
        kwargs = {**vocabulary.special_tokens, **kwargs}
        for name in SPECIAL_NAMES:
            if kwargs.get(name) is not None:
                kwargs[name] = _spell(str(kwargs[name]), canonicalize)
        # Tokens of the vocabulary are known from there; their spelling may differ here.
        added = kwargs.pop("added_tokens_decoder", {})
        added = {index: token for index, token in added.items() if int(index) >= len(vocabulary.pieces)}
        kwargs.setdefault("add_bos_token", vocabulary.adds_bos)
        kwargs.setdefault("model_max_length", 64)
        kwargs.setdefault("split_special_tokens", True)
        self._characters = CharacterMap(vocabulary.character_map)
        super().__init__(
            tokenizer_object=vocabulary.backend(canonicalize),
            canonicalize=canonicalize,
            added_tokens_decoder=added,
            **kwargs,
        )
        self.canonicalize = canonicalize

    @classmethod
    def convert_to_native_format(cls, **kwargs) -> dict[str, Any]:
        """What `from_pretrained` found in a directory, as it is: `__init__` reads the files."""
        kwargs.pop("trust_remote_code", None)
        return kwargs

    def _encode_plus(self, text, text_pair=None, is_split_into_words: bool = False, **kwargs):
        if is_split_into_words:
            raise ValueError("Expected texts, got lists of words (is_split_into_words=True). Join them with spaces.")
        return super()._encode_plus(self._prepare(text), self._prepare(text_pair), **kwargs)

    def _save_pretrained(self, save_directory, file_names, **kwargs):
        """The file maps characters too, so that other readers of it need nothing of this class."""
        plain = self._tokenizer.normalizer
        if self._characters.blob:
            self._tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(self._characters.blob), plain])
        try:
            return super()._save_pretrained(save_directory, file_names, **kwargs)
        finally:
            self._tokenizer.normalizer = plain

    def _prepare(self, text):
        """Canonical text in the vocabulary's characters, for a text or a (nested) list of them."""
        if isinstance(text, (list, tuple)):
            return [self._prepare(entry) for entry in text]
        if not isinstance(text, str):
            return text
        return self._characters.apply(canonicalize_text(text) if self.canonicalize else text)


def _spell(special: str, canonicalize: bool) -> str:
    """The name of a special piece in the vocabulary.

    sentencepiece never finds special pieces in text, `tokenizers` would. Canonical text can't hold "<" or ">"; for
    other text a code point that Unicode keeps out of texts is appended, so that the name is not found.
    """
    return special.removesuffix(NONCHARACTER) + ("" if canonicalize else NONCHARACTER)


# --------------------------------------------------------------------------------------------------- vocabularies


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer is made of.

    Attributes:
        pieces: (piece, log probability) by id.
        special: ids of pieces that no text contains.
        unknown_id: the piece for characters that are in no other.
        character_map: `precompiled_charsmap` of a sentencepiece model, possibly empty.
        special_tokens: the pieces with a role by transformers' name for it, as far as the file tells.
        adds_bos: whether ids begin with the begin token.
    """

    pieces: list[tuple[str, float]]
    special: frozenset[int]
    unknown_id: int
    character_map: bytes
    special_tokens: dict[str, str]
    adds_bos: bool

    def backend(self, canonicalize: bool) -> Tokenizer:
        """The tokenizer, for canonical or other text whose characters have been mapped."""
        pieces = [
            (_spell(piece, canonicalize) if index in self.special else piece, score)
            for index, (piece, score) in enumerate(self.pieces)
        ]
        tokenizer = Tokenizer(Unigram(pieces, unk_id=self.unknown_id, byte_fallback=False))
        # Spaces at the ends and after another space go, and one comes before the first word.
        superfluous = normalizers.Replace(Regex(r"\A +| +\z|(?<= ) +"), "")
        tokenizer.normalizer = normalizers.Sequence(
            [superfluous, normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        )
        tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
        tokenizer.add_special_tokens(
            [AddedToken(pieces[index][0], normalized=False) for index in sorted(self.special)]
        )
        return tokenizer


def _read_json(path: Path) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`, ours or the one that transformers writes for VideoPrism."""
    try:
        state = json.loads(path.read_text("utf-8"))
        model = state["model"]
        if model.get("type") != "Unigram":
            raise ValueError(f"{path}: expected a Unigram vocabulary, got {model.get('type')}.")
        pieces = [(piece, score) for piece, score in model["vocab"]]
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: is no readable tokenizer.json ({error!r}). Build it again from its model."
        ) from error
    special = {entry["id"] for entry in state.get("added_tokens", []) if entry["special"]}
    encoded = next(_character_maps(state.get("normalizer")), "")
    special = frozenset(index for index in special | {model["unk_id"]} if index < len(pieces))
    special_tokens = {"unk_token": pieces[model["unk_id"]][0], "pad_token": pieces[0][0]}
    for token in (state.get("post_processor") or {}).get("special_tokens", {}):
        special_tokens["bos_token"] = token
    return Vocabulary(
        pieces,
        special,
        model["unk_id"],
        base64.b64decode(encoded),
        special_tokens,
        adds_bos="bos_token" in special_tokens,
    )


def _character_maps(normalizer: dict[str, Any] | None) -> Iterator[str]:
    """The character maps in a normalizer's JSON, encoded."""
    if normalizer is None:
        return
    if "precompiled_charsmap" in normalizer:
        yield normalizer["precompiled_charsmap"]
    for step in normalizer.get("normalizers", ()):
        yield from _character_maps(step)


def _read_sentencepiece(path: Path) -> Vocabulary:
    """The vocabulary of a sentencepiece model."""
    model = _parse_sentencepiece(path)
    pieces = [(entry.piece, entry.score) for entry in model.pieces]
    types = [entry.Type.Name(entry.type) for entry in model.pieces]
    _check_model(path, model, set(types))
    controls = {piece: index for index, (piece, _) in enumerate(pieces) if types[index] == "CONTROL"}
    unknown_id = types.index("UNKNOWN")
    special_tokens = {"unk_token": pieces[unknown_id][0], "pad_token": pieces[0][0]}
    named = {"bos_token": model.trainer_spec.bos_piece, "eos_token": model.trainer_spec.eos_piece}
    special_tokens |= {name: piece for name, piece in named.items() if piece in controls}
    return Vocabulary(
        pieces,
        frozenset({unknown_id, *controls.values()}),
        unknown_id,
        model.normalizer_spec.precompiled_charsmap,
        special_tokens,
        adds_bos="bos_token" in special_tokens,
    )


def _parse_sentencepiece(path: Path) -> Any:
    """The file as a `ModelProto` of sentencepiece_model.proto."""
    try:
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise ImportError(
            f"{path}: give a tokenizer.json, or install protobuf, which reads sentencepiece models: "
            "`pip install protobuf`."
        ) from error
    model = import_protobuf().ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError(f"{path}: is no sentencepiece model ({error}). Download it again.") from error
    if not model.pieces or not model.HasField("trainer_spec") or not model.HasField("normalizer_spec"):
        raise ValueError(f"{path}: is no sentencepiece model (it lacks pieces or settings). Download it again.")
    return model


def _check_model(path: Path, model: Any, types: set[str]) -> None:
    """Raise for a model that works in a way which VideoPrism's doesn't."""
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    others = [name.lower().replace("_", "-") for name in sorted(types - {"NORMAL", "UNKNOWN", "CONTROL"})]
    by_default = normalizer.add_dummy_prefix and normalizer.remove_extra_whitespaces and normalizer.escape_whitespaces
    complaints = {
        "is no unigram model": trainer.model_type != trainer.UNIGRAM,
        f"has pieces that are {' and '.join(others)}": bool(others),
        "has no unknown piece": "UNKNOWN" not in types,
        "falls back to bytes": trainer.byte_fallback,
        "puts the space after words": trainer.treat_whitespace_as_suffix,
        "treats spaces in a way of its own": not by_default,
    }
    found = [text for text, wrong in complaints.items() if wrong]
    if found:
        raise ValueError(f"{path}: {', '.join(found)}; VideoPrism takes unigram models with the default settings.")


class CharacterMap:
    """The character map of a sentencepiece model: at each place the longest match is replaced.

    `tokenizers` has it as the normalizer `Precompiled`, which looks at whole graphemes and so loses combining marks
    after some characters: "ｖ" with a mark becomes "v" without.

    The map is a double-array trie over UTF-8 bytes (Darts-clone), its size in bytes before it, and the replacements
    after it, each ended by a zero byte.
    """

    def __init__(self, blob: bytes):
        size = struct.unpack_from("<I", blob)[0] if blob else 0
        self.blob = blob
        self._units = struct.unpack_from(f"<{size // 4}I", blob, 4) if blob else ()
        self._replacements = blob[4 + size :]
        printable = "".join(map(chr, range(0x20, 0x7F)))
        self._keeps_ascii = self._replace(printable) == printable

    def apply(self, text: str) -> str:
        """The text with every match replaced."""
        if not self.blob or (self._keeps_ascii and text.isascii() and text.isprintable()):
            return text
        return self._replace(text)

    def _replace(self, text: str) -> str:
        source, output, position = text.encode(), bytearray(), 0
        while position < len(source):
            length, replacement = self._longest_match(source, position)
            if not length:
                length = _character_length(source[position])
                replacement = source[position : position + length]
            output += replacement
            position += length
        return output.decode()

    def _longest_match(self, source: bytes, start: int) -> tuple[int, bytes]:
        """How many bytes match, none if nothing does, and what replaces them."""
        length, replacement = 0, b""
        if not self._units:
            return length, replacement
        node = _offset(self._units[0])
        for position in range(start, len(source)):
            node ^= source[position]
            unit = self._units[node]
            if unit & 0x800000FF != source[position]:
                break
            node ^= _offset(unit)
            if unit >> 8 & 1:
                first = self._units[node] & 0x7FFFFFFF
                length = position + 1 - start
                replacement = self._replacements[first : self._replacements.index(b"\0", first)]
        return length, replacement


def _offset(unit: int) -> int:
    """The distance from a unit of the trie to its children."""
    return (unit >> 10) << ((unit & 0x200) >> 6)


def _character_length(first: int) -> int:
    """Bytes of a UTF-8 character, from its first byte."""
    return 1 + (first >= 0xC0) + (first >= 0xE0) + (first >= 0xF0)


__all__ = ["VideoPrismTokenizer"]
