"""Progress with rate and time left: a bar on a terminal, a plain line every 30 seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

_QUIET = 30.0  # seconds between lines when the output is piped
_said = float("-inf")  # when any bar last wrote a line: bars may be nested


class Progress:
    """`with Progress("train", total=300, unit="step") as bar: bar.advance(loss=0.4)`.

    Args:
        name: of the work.
        total: the number of units; None if unknown.
        unit: its name; `B` counts bytes, shown in decimal multiples.
        start: units done before (in a resumed run), which do not count in the rate.
    """

    def __init__(self, name: str, total: int | None, unit: str, start: int = 0) -> None:
        self._name, self._total, self._unit, self._start, self._done = name, total, unit, start, start
        self._bar: Any = None
        self._began = time.monotonic()
        if sys.stderr.isatty():
            from tqdm import tqdm

            size = {"dynamic_ncols": True}
            if 0 in os.get_terminal_size(sys.stderr.fileno()):  # a pseudo-terminal without size: tqdm shows nothing
                size = {"ncols": 80, "nrows": 24}
            self._bar = tqdm(
                total=total, initial=start, desc=name, unit=unit, unit_scale=unit == "B",
                leave=False, file=sys.stderr, **size,
            )  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1, **values: float) -> None:
        """Count `count` more units; `values` are shown too."""
        self._done += count
        if self._bar is not None:
            if values:
                self._bar.set_postfix({k: f"{v:.3g}" for k, v in values.items()}, refresh=False)
            self._bar.update(count)
            return
        global _said
        now = time.monotonic()
        if now - max(_said, self._began) >= _QUIET:
            _said = now
            print(self._line(now - self._began, values), file=sys.stderr, flush=True)

    def _line(self, seconds: float, values: dict[str, float]) -> str:
        rate = (self._done - self._start) / seconds
        of = f" of {self._amount(self._total)}" if self._total else ""
        left = f", {_clock((self._total - self._done) / rate)} left" if self._total and rate > 0 else ""
        shown = "".join(f", {k} {v:.3g}" for k, v in values.items())
        unit = "" if self._unit == "B" else f" {self._unit}"
        return f"{self._name}: {self._amount(self._done)}{of}{unit}, {self._amount(rate)}{unit}/s{left}{shown}"

    def _amount(self, value: float) -> str:
        if self._unit == "B":
            for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
                if value >= factor:
                    return f"{value / factor:.3g} {prefix}B"
            return f"{value:.0f} B"
        return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _clock(seconds: float) -> str:
    """`45 s`, `3:05` (minutes), `1:03:05`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
