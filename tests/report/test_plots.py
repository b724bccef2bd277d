"""Figures of a report: themed, with ids of their own, and true to their numbers."""

import re
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from dnasm.report.plots import (
    join_positions,
    plot_loss,
    plot_position_loss,
    plot_score_distribution,
    plot_strands,
    smooth,
)
from dnasm.report.svg import COLOURS, drawing, to_svg

STEPS = np.arange(0.0, 1000.0, 10.0)


def _loss() -> str:
    return plot_loss((STEPS, 2 - STEPS / 1e4), (STEPS[::10], 2 - STEPS[::10] / 1e4), [1.95, 1.96], ("best", 1.95))


def test_colours_come_from_the_page() -> None:
    svg = _loss()
    assert not [colour for colour in COLOURS.values() if colour in svg]
    assert not re.search(r"#(?!loss-)[0-9a-f]{6}\b", svg)
    assert {"var(--ink)", "var(--accent)", "var(--second)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", svg))


def test_fonts_come_from_the_page_and_nothing_from_outside() -> None:
    svg = _loss()
    assert "font-family" not in svg
    assert "font-size: 9px" in svg
    assert "<style" not in svg
    assert ">validation</text>" in svg
    outside = {url for url in re.findall(r"https?://[^\"' )]+", svg)}
    assert outside <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}


def test_ids_of_two_figures_never_meet() -> None:
    ids = [
        re.findall(r'\bid="([^"]+)"', svg) for svg in (_loss(), plot_score_distribution({"all": STEPS - 400}, "score"))
    ]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    for svg, known in zip((_loss(),), ids[:1], strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svg)) <= set(known)


@pytest.mark.parametrize("alleles", [10, 20_000])
def test_both_strands_follow_the_pages_colours_however_many_they_are(alleles: int) -> None:
    draw = np.random.default_rng(0)
    forward = draw.normal(size=alleles)
    svg = plot_strands(forward, forward + draw.normal(size=alleles), "nats")
    assert "<image" not in svg, "an image keeps its colours in the dark"
    assert "var(--accent)" in svg
    assert len(svg) < 300_000


def test_distances_begin_at_nothing() -> None:
    assert "\N{MINUS SIGN}" not in plot_score_distribution({"all": STEPS}, "distance")
    assert "\N{MINUS SIGN}" in plot_score_distribution({"all": STEPS - 400}, "score")


def test_the_same_numbers_draw_the_same_bytes() -> None:
    assert _loss() == _loss()


def test_dollar_signs_are_no_formulas() -> None:
    with drawing() as (figure, axes):
        axes.set_xlabel("a $b$ c")
        assert "a $b$ c" in to_svg(figure, "x", "title")


def test_joined_positions_keep_the_mean() -> None:
    rng = np.random.default_rng(0)
    start = np.arange(1.0, 1024.0)
    bits, targets = rng.normal(1.9, 0.1, start.size), rng.integers(1, 100, start.size).astype(float)
    edges, means = join_positions(start, start + 1, bits, targets)
    assert len(edges) == len(means) + 1 < 40
    assert (edges[0], edges[-1]) == (1.0, 1024.0)
    assert (np.diff(edges) > 0).all()
    inside = [(start >= a) & (start < b) for a, b in pairwise(edges)]
    assert_allclose(means, [np.average(bits[rows], weights=targets[rows]) for rows in inside])


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_few_positions_are_drawn_too(rows: int) -> None:
    start = np.arange(1.0, rows + 1.0)
    edges, means = join_positions(start, start + 1, np.full(rows, 1.9), np.ones(rows))
    assert len(edges) == len(means) + 1
    assert_allclose(means, 1.9)
    assert "<svg" in plot_position_loss(start, start + 1, np.full(rows, 1.9), np.ones(rows))


def test_smoothing_keeps_a_line_and_a_constant() -> None:
    assert_allclose(smooth(np.full(20, 3.0)), 3.0)
    line = np.arange(30.0)
    assert_allclose(smooth(line)[4:-4], line[4:-4])
    assert len(smooth(np.array([1.0, 2.0]))) == 2
