import pytest

from dnasm.genome import Variant


def test_coordinates() -> None:
    variant = Variant("chr17", 43_045_705, "TA", "C")
    assert (variant.start, variant.end) == (43_045_704, 43_045_706)
    assert str(variant) == "chr17:43045705:TA:C"


@pytest.mark.parametrize("text", ["chr17:43045705:T:C", "HLA:A*01:5:T:<DEL>", "1:7:ACGT:A"])
def test_text_round_trip(text: str) -> None:
    assert str(Variant.parse(text)) == text


def test_contig_may_hold_colons_and_position_separators() -> None:
    assert Variant.parse(" HLA:A*01:1,234:T:C\n") == Variant("HLA:A*01", 1234, "T", "C")


@pytest.mark.parametrize("text", ["", "chr1:5:A", "chr1:x:A:C", "chr1:-5:A:C", "chr1:1.5:A:C", "chr1:²:A:C"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write contig:pos:ref:alt"):
        Variant.parse(text)


@pytest.mark.parametrize(
    "fields", [("", 1, "A", "C"), ("chr1", 1, "", "C"), ("chr1", 1, "A", ""), ("chr1", 0, "A", "C")]
)
def test_impossible_variants_are_refused(fields: tuple[str, int, str, str]) -> None:
    with pytest.raises(ValueError, match="variant"):
        Variant(*fields)
