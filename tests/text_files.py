"""A tiny sentencepiece model, trained where a test needs it, and a writer of models with settings of any kind."""

import io
from functools import lru_cache
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


SUBJECTS = ("a dog", "the cat", "one red ball", "my friend", "a café owner")
VERBS = ("runs", "is jumping", "plays the drums", "waves", "falls down", "eats naïve soup")
PLACES = ("in the park", "at 100% speed", "on stage #1", "under <b> water", "near the sea -- slowly", "today!")
SENTENCES = [f"{subject} {verb} {place}." for subject in SUBJECTS for verb in VERBS for place in PLACES]
TEXTS = [
    "A dog is jumping in the PARK!",
    "Hello,World..",
    "  the   cat\twaves\n",
    "",
    "…",
    "café naïve Über straße ΣΊΣΥΦΟΣ",
    "ｖ̈ｉｄｅｏ ① ﬁne ™️ a\u0301",
    "tabs\tand\u00a0nbsp \u3000 wide",
    "日本語 and русский 😀",
    "it's state-of-the-art #1 @ 100%",
    "the cat " * 40,
]
RAW_TEXTS = [*TEXTS, "<s> a dog </s> <unk> runs<pad>"]


@lru_cache
def sentencepiece_model(**settings) -> bytes:
    """A unigram model with a begin token; `settings` are those of sentencepiece's trainer."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=model,
        **{"vocab_size": 120, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2, **settings},
    )
    return model.getvalue()


def t5_model() -> bytes:
    """A model with the special pieces of T5's vocabularies: padding, end and unknown, but no begin token."""
    return sentencepiece_model(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def reference_ids(model: bytes, text: str, max_length: int, bos: bool | None = None) -> list[int]:
    """What the original's `tokenize_texts` makes of canonical text, with sentencepiece itself."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    if bos is None:
        bos = processor.bos_id() >= 0
    ids = [processor.bos_id()] * bos + processor.encode(text)
    return ids[:max_length] + [0] * (max_length - len(ids))


def save_modernbert_tokenizer(folder: Path) -> None:
    """Write files as ModernBERT's tokenizer has them: one word a token, with the special tokens of PE Video."""
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "unk")}
    inputs = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names).save_pretrained(folder)
