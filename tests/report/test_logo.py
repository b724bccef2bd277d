"""Letters of logos: where they stand and how tall they are."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from dnasm.report.logo import draw_logo, extent, glyph, glyph_symbols, logo_svg, one_letter


def test_glyphs_fill_the_unit_square() -> None:
    for letter in "ACGT":
        box = glyph(letter).get_extents()
        assert_allclose([*box.min, *box.max], [0, 0, 1, 1], atol=1e-6)


def test_letters_are_as_tall_as_their_numbers() -> None:
    axes = Figure().add_subplot()
    draw_logo(axes, np.array([[1.0, 0.0, 0.0, -2.0], [0.0, 0.0, 3.0, 0.0]]), start=10.0)
    boxes = {
        collection.get_facecolor().tobytes(): collection.get_paths()[0].get_extents() for collection in axes.collections
    }
    low_high = sorted((round(box.x0), box.y0, box.y1) for box in boxes.values())
    assert_allclose(low_high, [(10, -2, 0), (10, 0, 1), (11, 0, 3)], atol=1e-6)
    assert axes.get_xlim() == (10, 12)
    assert axes.get_ylim() == pytest.approx((-2.25, 3.25))


def test_one_letter_takes_the_sequences_own() -> None:
    heights = one_letter("ANT", [1.0, 5.0, -2.0])
    assert heights.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, -2]]
    assert extent(heights)[0] < -2 < 1 < extent(heights)[1]


def test_an_svg_logo_uses_the_pages_letters() -> None:
    heights = np.array([[0.5, 0.0, 1.0, 0.0], [0.0, 0.001, 0.0, 2.0]])
    text = logo_svg(heights, "what it shows", mark=(1, 2), width=10, tall=40)
    assert re.findall(r'href="#logo-(.)"', text) == ["A", "G", "T"]
    scales = [float(scale) for scale in re.findall(r"scale\([\d.]+ (-[\d.]+)\)", text)]
    assert scales == [-10, -20, -40]
    feet = [float(foot) for foot in re.findall(r"translate\([\d.]+ ([\d.]+)\)", text)]
    assert feet == pytest.approx([40, 30, 40], abs=0.03)
    assert 'x="10"' in text
    assert all(f'id="logo-{letter}"' in glyph_symbols() for letter in "ACGT")
