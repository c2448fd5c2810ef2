"""Reports without their drawings, which take two thirds of the time: for tests of words, tables and numbers."""

import pytest

from gradworks.report import figures, forest, plots

DRAWN = figures.svg_of


def _use(monkeypatch, svg_of):
    for module in (figures, forest, plots):
        monkeypatch.setattr(module, "svg_of", svg_of)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are laid out, not rendered; each is an SVG with its text alternative."""
    from html import escape

    def empty(axes, salt, alt):
        return f'<svg role="img" aria-label="{escape(alt, quote=True)}"></svg>\n'

    _use(monkeypatch, empty)


@pytest.fixture
def drawn(undrawn, monkeypatch):
    """For a test that reads a drawing in a module whose others do not."""
    _use(monkeypatch, DRAWN)
