"""Every entry of every slot, found by listing the folders, and every combination of them."""

from __future__ import annotations

import itertools

from gradworks.methods._shared import entries

ENTRIES = {slot: entries.names(slot) for slot in ("objective", "weighting", "update")}
TRIPLES = list(itertools.product(*ENTRIES.values()))
# every two entries of different slots together once: the fewest triples where updates are many and the others as many
_OBJECTIVES, _WEIGHTINGS, _UPDATES = ENTRIES.values()
PAIRWISE = [
    (_OBJECTIVES[(i + j) % len(_OBJECTIVES)], weighting, update)
    for i, weighting in enumerate(_WEIGHTINGS)
    for j, update in enumerate(_UPDATES)
]
_HELD = {frozenset(two) for triple in PAIRWISE for two in itertools.combinations(enumerate(triple), 2)}
assert {frozenset(two) for triple in TRIPLES for two in itertools.combinations(enumerate(triple), 2)} == _HELD
# each entry at least once, beside plain training in the other two slots
PLAIN = ("supervised", "uniform", "erm")
STAR = [PLAIN]
STAR += [
    tuple(name if k == slot else PLAIN[k] for k in range(3))
    for slot, names in enumerate(ENTRIES.values())
    for name in names
    if name != PLAIN[slot]
]
