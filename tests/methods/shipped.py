"""Every entry of every slot, found by listing the folders, and every combination of them."""

from __future__ import annotations

import itertools

from gradworks.methods._shared import entries

ENTRIES = {slot: entries.names(slot) for slot in ("objective", "weighting", "update")}
TRIPLES = list(itertools.product(*ENTRIES.values()))
# each entry at least once, beside plain training in the other two slots
PLAIN = ("supervised", "uniform", "erm")
STAR = [PLAIN]
STAR += [
    tuple(name if k == slot else PLAIN[k] for k in range(3))
    for slot, names in enumerate(ENTRIES.values())
    for name in names
    if name != PLAIN[slot]
]
