"""Which columns of a user's file are texts. At most two are guessed: a pair, a title and its body, or the longest."""

from __future__ import annotations

from collections.abc import Sequence

from gradworks.base.errors import InputError
from gradworks.data import look

_PAIRS = (  # of texts that are read together
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("question", "passage"),
    ("question", "sentence"), ("question", "context"), ("text1", "text2"), ("text_a", "text_b"), ("query", "document"),
)  # fmt: skip
_BODIES = (
    "text", "sentence", "review", "content", "body", "message", "tweet", "document", "comment", "review_text",
    "description",
)  # fmt: skip
_TITLES = ("title", "subject", "headline", "summary")
_MOST = 2  # texts that are guessed; `--text` takes more
_FILLED = 0.95  # share of rows with a text, below which a second column would leave out too many
_DISTINCT = 0.25  # share of distinct values, below which a column holds reasons, places or other categories


def texts_of(file: look.File, label: str, chosen: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns of texts, and those that could be texts, too.

    Args:
        file: what was read.
        label: the label's column.
        chosen: the columns that `--text` names; empty: they are guessed.

    Raises:
        InputError: no column can be a text, or a chosen one is not there.
    """
    shown = ", ".join(repr(name[:40]) for name in file.names[:12])
    for name in chosen:
        if name not in file.names or name == label:
            raise InputError(f"{file.path}: --text: found {name!r}\nexpected a column that is not the label: {shown}")
    if chosen:
        return list(dict.fromkeys(chosen)), []
    free = {name: [v for v in file.columns[name] if v is not None and v != ""] for name in file.names if name != label}
    words = {name: look.words(values) for name, values in free.items()}
    could = [name for name in free if words[name] >= look.PROSE and _full(free[name], file.rows - file.bad)]
    plain = {name.strip().lower(): name for name in free if words[name]}
    made = next(([plain[one] for one in pair] for pair in _PAIRS if all(one in plain for one in pair)), [])
    if not made and (body := [plain[name] for name in _BODIES if name in plain][:1]):
        titles, bodies = ([plain[n] for n in names if plain.get(n) in could] for names in (_TITLES, _BODIES))
        made = list(dict.fromkeys([*body, *titles, *bodies]))[:_MOST]
    if not made:
        prose = [name for name in free if words[name] >= look.PROSE and len(set(free[name])) > 2]
        made = sorted(prose, key=lambda name: (name not in could, -words[name]))
        made = made[: max(1, min(_MOST, sum(name in could for name in made)))]
    if not made:
        made = [_short(file, free, words, shown)]
    return sorted(made, key=file.names.index), [name for name in could if name not in made]


def _full(values: Sequence[str], rows: int) -> bool:
    """Whether almost every row has a text and most texts differ."""
    return len(values) >= _FILLED * rows and len(set(values)) > _DISTINCT * len(values)


def _short(file: look.File, free: dict[str, list], words: dict[str, float], shown: str) -> str:
    """A column of words or phrases, where none has sentences."""
    short = [n for n in free if words[n] and not look.is_id(n, free[n]) and _full(free[n], len(free[n]))]
    if short:
        return max(short, key=lambda name: len(set(free[name])))
    ids = [name for name in free if look.is_id(name, free[name])]
    why = f"; {ids[0]!r} has ids" if ids else ""
    raise InputError(f"{file.path}: no column looks like a text{why}\nfound: {shown}\n`--text NAME` says which it is")
