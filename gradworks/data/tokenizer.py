"""Tokenizers: WordPiece trained on text or given as a vocabulary file, words for vectors from a file, byte-level BPE.

All are the `tokenizers` library's and are kept as one tokenizer.json. Cleaning, case folding and the cut at blanks and
punctuation are BERT's, but for models that write text; [PAD] is token 0 in every vocabulary that is made here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gradworks.base.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ALPHABET = 1000  # characters kept, the most frequent ones; the others become [UNK]


def train(texts: Sequence[str], size: int, lowercase: bool) -> Tokenizer:
    """WordPiece trained on texts; the same texts give the same vocabulary in the same order.

    Args:
        texts: gone through twice.
        size: tokens of the vocabulary at most, the five special ones included.
        lowercase: fold case and strip accents.

    Raises:
        InputError: the characters of the texts leave no room for anything else.
    """
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    _split(tokenizer, lowercase)
    first, inner = _alphabet(texts, tokenizer)
    if len(SPECIAL) + len(first) + len(inner) > size:
        need = len(SPECIAL) + len(first) + len(inner)
        raise InputError(f"vocabulary: found {size}\nexpected at least {need}: the texts have {len(first)} characters")
    # the trainer numbers the inner characters in the order of a hash table, which changes from run to run, and breaks
    # ties by number; pieces that it is given as special tokens are numbered in the order given
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL, *first, *inner],
        limit_alphabet=0,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return wordpiece([piece for piece, _ in pieces], lowercase)


def byte_level(texts: Sequence[str], size: int, lowercase: bool) -> Tokenizer:
    """Byte-level BPE (Radford et al. 2019) trained on texts: any text comes back from its tokens as it was.

    Token 0 is [PAD], token 1 [EOS]; neither is put around a text. Arguments as of `train`; at least 258 tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["[PAD]", "[EOS]"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def wordpiece(vocabulary: Sequence[str], lowercase: bool) -> Tokenizer:
    """BERT's tokenizer over a vocabulary; a pair becomes [CLS] a [SEP] b [SEP] with token types 0 and 1."""
    from tokenizers import Tokenizer, decoders, models, processors

    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    _split(tokenizer, lowercase)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([token for token in SPECIAL if token in ids])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def words(vocabulary: Sequence[str], lowercase: bool) -> Tokenizer:
    """One token per word or punctuation mark; `vocabulary` begins with [PAD] and [UNK]."""
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
    _split(tokenizer, lowercase)
    return tokenizer


def read_vocabulary(path: Path) -> list[str]:
    """A vocabulary file: one token per line, its number the line's, as the published BERT checkpoints have it.

    Raises:
        InputError: the file is missing or not UTF-8, a duplicate token, or no special token.
    """
    try:
        tokens = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from None
    tokens = [token.removesuffix("\r") for token in tokens]
    seen: dict[str, int] = {}
    for line, token in enumerate(tokens, 1):
        if token in seen:
            raise InputError(f"{path}: line {line}: duplicate token {token!r}, first on line {seen[token]}")
        seen[token] = line
    for token in SPECIAL:
        if token not in seen:
            raise InputError(f"{path}: no token {token}\nexpected: a WordPiece vocabulary, one token per line")
    return tokens


def _split(tokenizer: Tokenizer, lowercase: bool) -> None:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()


def _alphabet(texts: Iterable[str], tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Characters that begin a word, and pieces `##c` for those that can go on one, the most frequent 1000, sorted."""
    from collections import Counter

    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    kept = [c for c, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_ALPHABET]]
    normal = tokenizer.normalizer.normalize_str

    def cut(text: str) -> int:
        return len(tokenizer.pre_tokenizer.pre_tokenize_str(normal(text)))

    first = sorted({c for raw in kept for c in normal(raw) if cut(c)})
    return first, [f"##{c}" for c in first if cut(f"a{c}") == 1]
