"""Part-of-speech tags by a spaCy pipeline that is there (https://spacy.io/usage/linguistic-features#pos-tagging).

A pipeline is a package (en_core_web_sm) or a folder that `nlp.to_disk` wrote. Its tags are those of Universal
Dependencies, of which the task has twelve groups; a pipeline with Penn Treebank tags alone is read by the table of
taggers.py. What says nothing of parts of speech does not run. The rules of the English pipelines ask the parser
whether "that" is a pronoun and "after" a conjunction, so the parser runs where they do
(https://spacy.io/models#design).
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
# components, by their factories, that cost time and set neither pos nor tag
_UNUSED = {
    "ner", "parser", "senter", "sentencizer", "lemmatizer", "trainable_lemmatizer", "entity_linker", "entity_ruler",
    "textcat", "textcat_multilabel", "spancat", "spancat_singlelabel", "span_finder", "span_ruler",
}  # fmt: skip
_VECTORS = {"tok2vec", "transformer", "curated_transformer"}  # what taggers read
_BATCH = 256  # texts


def load(name: str, where: str) -> tuple[taggers.Tagger, dict[str, str]]:
    """The tagger of a pipeline; its name, its version, the components that run, and spaCy's version.

    Args:
        name: a package, or a folder.
        where: params file and key, for messages.

    Raises:
        InputError: spaCy or the pipeline is missing, it cannot be loaded, or nothing in it tags.
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
    had, asked = nlp.pipe_names, _asked_by_rules(nlp)
    for one in had:
        about = nlp.get_pipe_meta(one)
        if about.factory in _UNUSED and not asked.intersection(about.assigns):
            nlp.disable_pipe(one)
    if not {nlp.get_pipe_meta(one).factory for one in nlp.pipe_names} - _VECTORS:
        raise InputError(
            f"{where}.tags: nothing in the spaCy pipeline {name} tags: found the components {', '.join(had) or 'none'}"
            "\nexpected a tagger, a morphologizer or an attribute_ruler among them"
        )
    meta = nlp.meta
    return _tagger(nlp), {
        "pipeline": f"{meta['lang']}_{meta['name']}",
        "version": meta["version"],
        "components": ", ".join(nlp.pipe_names),
        "spacy": spacy.__version__,
    }


def _asked_by_rules(nlp: Any) -> set[str]:
    """What the rules that set parts of speech read of a word, as components name it: token.dep."""
    rulers = [nlp.get_pipe(one) for one in nlp.pipe_names if nlp.get_pipe_meta(one).factory == "attribute_ruler"]
    rules = [rule for ruler in rulers for rule in ruler.patterns if {"POS", "TAG"} & set(rule["attrs"])]
    return {f"token.{key.lower()}" for rule in rules for words in rule["patterns"] for word in words for key in word}


def _tagger(nlp: Any) -> taggers.Tagger:
    def docs(texts: Iterable[str]) -> Iterator[tuple[Any, str]]:
        for text in texts:
            try:
                yield nlp.make_doc(text), ""
            except Exception as error:  # longer than the pipeline or its tokenizer takes, half a character
                said = " ".join(str(error).split())[:80]
                yield nlp.make_doc(""), f"spaCy does not read its text of {len(text)} characters: {said}"

    def tag(texts: Iterable[str]) -> Iterator[list[tuple[str, str]] | str]:
        for doc, fault in nlp.pipe(docs(texts), as_tuples=True, batch_size=_BATCH):
            words = [(token, _universal(token)) for token in doc if not token.is_space]
            bare = next((token for token, found in words if not found), None)
            if bare is not None:
                found = f"found pos {bare.pos_!r}, tag {bare.tag_!r}"
                fault = f"spaCy gives {bare.text[:40]!r} no part of speech that is known: {found}"
            yield fault or [(token.text, found) for token, found in words]

    return tag


def _universal(token: Any) -> str | None:
    """One of the twelve; None where the pipeline has no tag for the word, or one of another tagset."""
    found = token.pos_ or token.tag_  # of a tagger that was trained on them, too
    return found if found in taggers.TAGS else _UD.get(found) or taggers.universal(found)
