"""Tokenizers: the same bytes from the same texts, BERT's reading of pairs, vocabularies that are checked."""

import subprocess
import sys

import pytest

from gradworks.base.errors import InputError
from gradworks.data import tokenizer

TEXTS = [
    "The NASA engineer who met Ada thanked the tired pilot.",
    "Ada thanked the engineer; the pilot met NASA's lawyer.",
    "Éva and the lawyers believed that the pilots slept.",
] * 4  # fmt: skip


def test_byte_level_gives_every_text_back_and_the_same_bytes_each_time(tmp_path):
    program = (
        "import sys; from gradworks.data import tokenizer\n"
        "words = [f'w{i * 37 % 97}{chr(97 + i * i % 26)}x' for i in range(3000)]\n"
        "texts = [' '.join(words[i : i + 9]) for i in range(0, 3000, 9)]\n"
        "tokenizer.byte_level(texts, 400, False).save(sys.argv[1])"
    )
    saved = [tmp_path / f"{i}.json" for i in range(3)]
    for file in saved:
        subprocess.run([sys.executable, "-c", program, str(file)], check=True)
    assert len({file.read_bytes() for file in saved}) == 1
    made = tokenizer.byte_level(TEXTS, 300, False)
    assert made.get_vocab_size() == 300 and (made.token_to_id("[PAD]"), made.token_to_id("[EOS]")) == (0, 1)
    for text in (*TEXTS, " two  blanks\n", "Ω \U0001f600 naïve"):
        assert made.decode(made.encode(text).ids) == text
    assert tokenizer.byte_level(TEXTS, 300, True).decode(made.encode("nasa").ids) == "nasa"
    lower = tokenizer.byte_level(TEXTS, 300, True)
    assert lower.encode("NASA").ids == lower.encode("nasa").ids


def test_training_twice_in_other_processes_gives_the_same_bytes(tmp_path):
    # the library's trainer numbers inner characters in the order of a hash table that differs between processes
    program = (
        "import sys; from gradworks.data import tokenizer\n"
        "words = [f'w{i * 37 % 97}{chr(97 + i * i % 26)}x' for i in range(3000)]\n"
        "texts = [' '.join(words[i : i + 9]) for i in range(0, 3000, 9)]\n"
        "tokenizer.train(texts, 300, True).save(sys.argv[1])"
    )
    files = [tmp_path / f"{i}.json" for i in range(3)]
    for file in files:
        subprocess.run([sys.executable, "-c", program, str(file)], check=True)
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.parametrize("lowercase", [True, False])
def test_case(lowercase):
    made = tokenizer.train(TEXTS, 120, lowercase)
    assert made.get_vocab_size() <= 120
    assert [made.id_to_token(i) for i in range(5)] == list(tokenizer.SPECIAL)
    same = made.encode("nasa eva").ids == made.encode("NASA Éva").ids
    assert same == lowercase
    assert "[UNK]" not in made.encode("The lawyer slept").tokens
    assert "[UNK]" in made.encode("漢").tokens
    assert made.decode(made.encode("the pilot").ids) == "the pilot"


def test_a_vocabulary_holds_no_token_twice_and_the_whole_alphabet():
    made = tokenizer.train(TEXTS, 120, False)
    vocabulary = made.get_vocab()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    letters = {c for text in TEXTS for c in text if not c.isspace()}
    assert letters <= vocabulary.keys()
    assert "##'" not in vocabulary and "##a" in vocabulary


def test_pairs_are_read_as_bert_reads_them():
    made = tokenizer.train(TEXTS, 120, True)
    one = made.encode("ada", "the pilot")
    assert one.tokens[0] == "[CLS]" and one.tokens.count("[SEP]") == 2 and one.tokens[-1] == "[SEP]"
    cut = one.tokens.index("[SEP]") + 1
    assert one.type_ids == [0] * cut + [1] * (len(one.tokens) - cut)


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(InputError, match=r"vocabulary: found 20\nexpected at least \d+"):
        tokenizer.train(TEXTS, 20, True)


def test_a_given_vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n[MASK]\r\nun\r\n##aff\r\n##able\r\n")
    made = tokenizer.wordpiece(tokenizer.read_vocabulary(path), lowercase=True)
    assert made.encode("Unaffable").tokens == ["[CLS]", "un", "##aff", "##able", "[SEP]"]
    assert made.token_to_id("un") == 5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[PAD]\n[UNK]\n[PAD]\n", r"line 3: duplicate token '\[PAD\]', first on line 1"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n", r"no token \[MASK\]"),
        (b"\xff\n", "not UTF-8 at byte 0"),
        (None, "no such file"),
    ],
)
def test_a_bad_vocabulary_is_named(tmp_path, content, said):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as found:
        tokenizer.read_vocabulary(path)
    assert str(path) in str(found.value)


@pytest.mark.parametrize("case", ["cased", "uncased"])
def test_published_vocabulary_reads_as_transformers_does(data, case):
    from transformers import BertTokenizer

    file = data / f"vocab/bert-base-{case}-vocab.txt"
    made = tokenizer.wordpiece(tokenizer.read_vocabulary(file), lowercase=case == "uncased")
    theirs = BertTokenizer(vocab=str(file), do_lower_case=case == "uncased")
    for text in ("Naïve Éric's 3.5% cost-benefit analysis: unaffable!", "HELLO\tWorld 漢字 [MASK] ok"):
        assert made.encode(text, "The pilot").ids == theirs(text, "The pilot")["input_ids"]


def test_words():
    made = tokenizer.words(["[PAD]", "[UNK]", "the", "pilot"], lowercase=True)
    assert made.encode("The pilot, the").ids == [2, 3, 1, 2]
