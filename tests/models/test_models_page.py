"""The table of sizes in docs/models.md says what the presets are."""

import re

from dnasm.presets import preset, preset_names
from tests.conftest import ROOT


def test_the_table_of_sizes_is_right() -> None:
    row = re.compile(r"^\| `([\w.-]+)` \| (\w+) \| (\d+) \| (\d+) \| ([\d,]+|any) \| ([\d,]+) \|$", re.MULTILINE)
    rows = row.findall((ROOT / "docs/models.md").read_text())
    assert [name for name, *_ in rows] == preset_names()
    for name, family, layers, channels, length, parameters in rows:
        config = preset(name)
        assert (config.family, config.num_layers, config.d_model) == (family, int(layers), int(channels))
        assert config.max_length == (None if length == "any" else int(length.replace(",", "")))
        assert config.parameters() == int(parameters.replace(",", ""))
