"""Part-of-speech tags by a spaCy pipeline that is there (https://spacy.io/usage/linguistic-features#pos-tagging).

A pipeline is a package (en_core_web_sm) or a folder that `nlp.to_disk` wrote, and may run code of its own: take those
that you trust. Its tags are those of Universal Dependencies, of which the task has twelve groups; a pipeline with
Penn Treebank tags alone is read by the table of taggers.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gradworks.base.errors import InputError
from gradworks.base.sources import tagger_folder
from gradworks.data import taggers

# tags of Universal Dependencies (https://universaldependencies.org/u/pos) that are none of the twelve
_UD = {
    "PROPN": "NOUN", "AUX": "VERB", "CCONJ": "CONJ", "SCONJ": "CONJ", "PART": "PRT", "PUNCT": ".", "SYM": "X",
    "INTJ": "X",
}  # fmt: skip
# components that cost time and say nothing of parts of speech
_UNUSED = {
    "ner", "parser", "senter", "sentencizer", "lemmatizer", "trainable_lemmatizer", "entity_linker", "entity_ruler",
    "textcat", "textcat_multilabel", "spancat", "span_ruler",
}  # fmt: skip
_BATCH = 256  # texts


def load(name: str, where: str) -> tuple[taggers.Tagger, dict[str, str]]:
    """The tagger of a pipeline, and its name and version.

    Args:
        name: a package, or a folder.
        where: params file and key, for messages.

    Raises:
        InputError: spaCy or the pipeline is missing, or it cannot be loaded; from the tagger, a word has no tag.
    """
    try:
        import spacy
    except ModuleNotFoundError as error:
        if error.name != "spacy":
            raise
        raise InputError(f"{where}.tags: spacy is not installed\nexpected: pip install 'gradworks[spacy]'") from None
    there = tagger_folder(f"spacy:{name}")
    if there and not Path(there, "meta.json").is_file():
        raise InputError(f"{where}.tags: {there}: no folder with a meta.json\nexpected what spaCy's `to_disk` wrote")
    try:
        nlp = spacy.load(Path(there) if there else name)
    except Exception as error:  # of its config, of code that it brings, of another spaCy's weights
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{where}.tags: the spaCy pipeline {name} cannot be loaded: {said}\n"
            f"expected an installed package (python -m spacy download en_core_web_sm) or a folder, as spacy:./FOLDER"
        ) from None
    nlp.select_pipes(disable=[one for one in nlp.pipe_names if one in _UNUSED])
    about = {"pipeline": f"{nlp.meta['lang']}_{nlp.meta['name']}", "version": nlp.meta["version"]}
    return _tagger(nlp, f"{where}.tags: the spaCy pipeline {name}"), about | {"spacy": spacy.__version__}


def _tagger(nlp: Any, who: str) -> taggers.Tagger:
    def tag(texts: Iterable[str]) -> Iterator[list[tuple[str, str]]]:
        texts = list(texts)
        # the limit is for parser and ner, which need 1 GB for 100,000 characters and do not run here
        nlp.max_length = max([nlp.max_length, *map(len, texts)])
        for doc in nlp.pipe(texts, batch_size=_BATCH):
            yield [(token.text, _universal(token, nlp, who)) for token in doc if not token.is_space]

    return tag


def _universal(token: Any, nlp: Any, who: str) -> str:
    found = _UD.get(token.pos_, token.pos_) or (taggers.universal(token.tag_) if token.tag_ else "")
    if found not in taggers.TAGS:
        raise InputError(
            f"{who}: no part of speech for {token.text[:40]!r}: found pos {token.pos_!r}, tag {token.tag_!r}\n"
            f"expected a tagger or a morphologizer in it; its components: {', '.join(nlp.pipe_names) or 'none'}"
        )
    return found
