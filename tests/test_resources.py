"""Files that ship with dnasm, by name."""

import pytest

from dnasm.errors import InputError
from dnasm.resources import locate


def test_a_shipped_file_is_found_by_name() -> None:
    assert locate("dnasm:data/README.md").read_text().startswith("# Data")


def test_any_other_path_is_taken_as_it_is() -> None:
    assert str(locate("data/none.fa")) == "data/none.fa"


def test_a_name_that_does_not_exist_is_bad_input_and_shows_what_does() -> None:
    with pytest.raises(InputError, match=r"data/yeast\.fa.*yeast_r64\.fa\.gz"):
        locate("dnasm:data/yeast.fa")
