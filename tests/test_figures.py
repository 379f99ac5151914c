"""Figures of labels in any script."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from audioclf.figures import confusion_figure, precision_figure, timeline_figure
from audioclf.timeline import Timeline

LABELS = ("\ud55c", "$x$")


@pytest.fixture
def hangul(tmp_path, monkeypatch):
    """A font of a usual name that has the one character, as if it were installed."""
    pen = TTGlyphPen(None)
    for corner, move in zip(((0, 0), (0, 900), (900, 0)), (pen.moveTo, pen.lineTo, pen.lineTo), strict=True):
        move(corner)
    pen.closePath()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "han"])
    font.setupCharacterMap({0xD55C: "han"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "han": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (500, 0), "han": (1000, 0)})
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": "NanumGothic", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "font.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    font_manager.fontManager.addfont(tmp_path / "font.ttf")


@pytest.mark.parametrize("kind", ["confusion", "precision", "timeline"])
def test_hangul_is_drawn_where_a_font_has_it(kind, hangul, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if kind == "confusion":
            figure = confusion_figure(np.array([[3, 1], [0, 2]]), LABELS)
        elif kind == "precision":
            figure = precision_figure(np.array([0.5, 0.25]), LABELS)
        else:
            times, scores = np.array([[0.0, 1.0], [1.0, 2.0]]), np.array([[0.9, 0.1], [0.4, 0.6]])
            figure = timeline_figure(Timeline(LABELS, times, scores, ()))
        figure.savefig(tmp_path / "figure.png")


def test_without_a_font_for_it_a_figure_is_drawn_all_the_same(tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        confusion_figure(np.array([[3, 1], [0, 2]]), LABELS).savefig(tmp_path / "figure.png")
    assert not any("findfont" in str(warning.message) for warning in told)
