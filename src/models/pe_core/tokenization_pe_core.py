"""Tokenizer of PE core's text tower: that of facebookresearch/perception_models (3e352cca), on `tokenizers`.

The original, `core/vision_encoder/tokenizer.py`, is CLIP's byte-pair tokenizer with other names of the special tokens.

    raw text → mended → HTML unescaped → one space between words, lower case → words → pairs of bytes merged → ids
"""

import gzip
import html
import json
import os
from pathlib import Path
from typing import Any

import regex
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from transformers.tokenization_utils_tokenizers import TokenizersBackend


BOS, EOS, PAD = "<start_of_text>", "<end_of_text>", "!"
END_OF_WORD = "</w>"
MOST_MERGES = 48894
WORD = rf"{BOS}|{EOS}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"
_WORDS = regex.compile(WORD, regex.IGNORECASE)


class PeCoreTokenizer(TokenizersBackend):
    """Text to token ids, as `SimpleTokenizer` of the original does it.

    `tokenizer(texts, padding="max_length", truncation=True)` gives 32 ids a text, or 72 for the largest model: a begin
    token, the text, an end token, which cut texts keep, and zeros. Text is cleaned first: see [`clean_text`]. 0 is the
    number of an exclamation mark inside a word too, so that no token stands for padding alone.

    Args:
        vocab_file: the list of merges that the original's repository holds, `bpe_simple_vocab_16e6.txt.gz`, or the
            same unpacked.
        tokenizer_file: a `tokenizer.json`, which wins over `vocab_file`; CLIP's is the same vocabulary.

    All other arguments are those of `transformers.TokenizersBackend`.

    Raises:
        ValueError: no file is given, or one that is no vocabulary of this kind.
    """

    vocab_files_names = {"vocab_file": "bpe_simple_vocab_16e6.txt.gz", "tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids"]

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        tokenizer_file: str | os.PathLike | None = None,
        **kwargs,
    ):
        if tokenizer_file is not None:
            merges = _read_json(Path(tokenizer_file))
        elif vocab_file is not None:
            merges = _read_merges(Path(vocab_file))
        else:
            raise ValueError(
                "Expected vocab_file (bpe_simple_vocab_16e6.txt.gz of the original's repository) or tokenizer_file (a "
                "tokenizer.json), got neither. `vidformers convert … --tokenizer FILE` writes a directory with one."
            )
        for name in ("bos_token", "eos_token", "pad_token", "added_tokens_decoder"):
            kwargs.pop(name, None)
        kwargs.setdefault("model_max_length", 32)
        super().__init__(
            tokenizer_object=_backend(merges),
            bos_token=BOS,
            eos_token=EOS,
            **{**kwargs, "add_bos_token": True, "add_eos_token": True},
        )

    @classmethod
    def convert_to_native_format(cls, **kwargs) -> dict[str, Any]:
        """What `from_pretrained` found in a directory, as it is: `__init__` reads the files."""
        kwargs.pop("trust_remote_code", None)
        return kwargs

    @property
    def pad_token(self) -> str:
        """The token whose number pads; registered as a special token, it would be found in texts."""
        return PAD

    @property
    def pad_token_id(self) -> int:
        """0."""
        return 0

    def _encode_plus(self, text, text_pair=None, is_split_into_words: bool = False, **kwargs):
        if is_split_into_words or text_pair is not None:
            raise ValueError("Expected texts, got pairs of texts or lists of words. Give one string for each text.")
        words = [split_words(entry) for entry in text] if isinstance(text, (list, tuple)) else split_words(text)
        return super()._encode_plus(words, is_split_into_words=True, **kwargs)

    def _decode(self, token_ids, skip_special_tokens: bool = False, **kwargs) -> str:
        """As the original, with a space after every word; padding goes with the special tokens."""
        token_ids = [token_ids] if isinstance(token_ids, int) else list(token_ids)
        if skip_special_tokens and self.eos_token_id in token_ids:
            token_ids = token_ids[: token_ids.index(self.eos_token_id)]
        return super()._decode(token_ids, skip_special_tokens, **kwargs)

    def _save_pretrained(self, save_directory, file_names, **kwargs):
        """The file splits and cleans as far as `tokenizers` can, so that other readers of it need little of this."""
        backend, words_only = self._tokenizer, self._tokenizer.pre_tokenizer
        backend.no_truncation()
        backend.no_padding()
        split = pre_tokenizers.Split(Regex(f"(?i:{WORD})"), behavior="removed", invert=True)
        spaces = normalizers.Replace(Regex(r"\s+"), " ")
        try:
            backend.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
            backend.pre_tokenizer = pre_tokenizers.Sequence([split, words_only])
            return super()._save_pretrained(save_directory, file_names, **kwargs)
        finally:
            backend.normalizer, backend.pre_tokenizer = None, words_only


def split_words(text: str) -> list[str]:
    """The words of a text, which tokens never cross: runs of letters, digits one by one, runs of other signs."""
    return _WORDS.findall(clean_text(text))


# ---------------------------------------------------------------------------------------------------- vocabularies


def _backend(merges: list[tuple[str, str]]) -> Tokenizer:
    """The tokenizer of single words.

    Ids: the bytes, the bytes at the end of a word, the merges in their order, and the two special tokens.
    """
    alphabet = _byte_alphabet()
    pieces = [*alphabet, *(sign + END_OF_WORD for sign in alphabet), *("".join(merge) for merge in merges), BOS, EOS]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=END_OF_WORD))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(END_OF_WORD, " ")])
    tokenizer.add_special_tokens([AddedToken(BOS, normalized=False), AddedToken(EOS, normalized=False)])
    return tokenizer


def _byte_alphabet() -> list[str]:
    """A visible character for each byte, in the order of their ids: those that are visible in Latin-1 come first."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, visible), *(chr(256 + index) for index in range(256 - len(visible)))]


def _read_merges(path: Path) -> list[tuple[str, str]]:
    """The merges of CLIP's list, of which the first line is a heading and the last lines are not used."""
    try:
        content = path.read_bytes()
        lines = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode().split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as a list of merges ({error}).") from error
    merges = [tuple(line.split()) for line in lines[1 : MOST_MERGES + 1] if line.strip()]
    return _checked(merges, path)


def _read_json(path: Path) -> list[tuple[str, str]]:
    """The merges of a `tokenizer.json`, ours or one of CLIP's."""
    try:
        model = json.loads(path.read_text("utf-8"))["model"]
        merges = [tuple(merge.split() if isinstance(merge, str) else merge) for merge in model["merges"]]
        suffix = model["end_of_word_suffix"]
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: is no tokenizer.json of a byte-pair vocabulary ({error!r}).") from error
    if suffix != END_OF_WORD:
        raise ValueError(f"{path}: expected words to end in {END_OF_WORD!r}, got {suffix!r}.")
    return _checked(merges, path)


def _checked(merges: list[tuple[str, ...]], path: Path) -> list[tuple[str, str]]:
    """The merges, if each joins two pieces that are known before it; a ValueError otherwise."""
    known = {sign + end for sign in _byte_alphabet() for end in ("", END_OF_WORD)}
    for merge in merges:
        if len(merge) != 2 or not known.issuperset(merge):
            raise ValueError(
                f"{path}: expected merges of two known pieces each, as in bpe_simple_vocab_16e6.txt.gz, got {merge}."
            )
        known.add("".join(merge))
    if not merges:
        raise ValueError(f"{path}: holds no merges.")
    return merges


# -------------------------------------------------------------------------------------------------------- cleaning


def clean_text(text: str) -> str:
    """Mend a text, take HTML escapes out, put one space between words, and write it in lower case."""
    import ftfy  # a third of what `import vidformers` would take

    unescaped = html.unescape(html.unescape(ftfy.fix_text(text)))
    return regex.sub(r"\s+", " ", unescaped.strip()).strip().lower()


__all__ = ["PeCoreTokenizer"]
