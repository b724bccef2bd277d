"""The picture of a mutagenesis: what its colours mean."""

import numpy as np
import pytest

from dnasm.report.mutation_map import HeatMap, mutation_figure


@pytest.mark.parametrize(("deletion", "shape"), [(-40.0, "min"), (40.0, "max"), (0.5, "neither"), (np.nan, "neither")])
def test_deletions_do_not_wash_out_the_substitutions(deletion: float, shape: str) -> None:
    values = np.zeros((4, 5))
    values[:, :4] = np.array([[0.0, 1.0, -1.0, 1.0]] * 4)
    values[:, 4] = deletion
    with mutation_figure("AAAA", 0, [], [HeatMap("change", values)], "title") as figure:
        (mesh,) = [mesh for axes in figure.get_axes() for mesh in axes.collections if hasattr(mesh, "get_coordinates")][
            :1
        ]
        assert mesh.get_clim() == (-1, 1)
        bars = [axes.yaxis.axes for axes in figure.get_axes() if axes.get_label() == "<colorbar>"]
        assert [bar._colorbar.extend for bar in bars] == [shape]
