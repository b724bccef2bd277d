import math
import subprocess
import sys
from pathlib import Path

import pysam
import pytest

from dnasm.errors import OutputError
from dnasm.genome import InfoField, VcfReader, VcfWriter, read_vcf
from dnasm.genome import vcf_writer as module
from tests.genome.test_vcf import HEADER, RECORDS, text, vcf

LLR = InfoField("DNASM_LLR", "log p(alt) - log p(ref)")
STATUS = InfoField("DNASM_STATUS", "what came of it", "String")


def annotate(reader: VcfReader, out: Path | str, *, force: bool = False) -> None:
    with VcfWriter(out, reader.header, [LLR, STATUS], extra=["##dnasm_version=1"], force=force) as writer:
        for record in reader:
            values = [1 / 3, math.nan, None][: len(record.alts)]
            writer.write(record, {"DNASM_LLR": values, "DNASM_STATUS": ["ok; fine"] * len(record.alts)})


def test_only_info_changes_and_order_stays(tmp_path: Path) -> None:
    with read_vcf(vcf(tmp_path, text(*RECORDS))) as reader:
        annotate(reader, tmp_path / "out.vcf")
    lines = (tmp_path / "out.vcf").read_bytes().decode("utf-8", "surrogateescape").splitlines()
    header = HEADER.splitlines()
    assert lines[:8] == [*header[:-1], LLR.header, STATUS.header, "##dnasm_version=1", header[-1]]
    status = "ok%3B%20fine"
    assert lines[8:] == [
        f"chr1\t100\trs1\tA\tT\t.\t.\tAC=1;DNASM_LLR=0.333333333;DNASM_STATUS={status}",
        f"chr1\t50\t.\tACGT\tA,<DEL>,*\t1e2\tPASS\tDNASM_LLR=0.333333333,.,.;DNASM_STATUS={status},{status},{status}",
        "HLA:A*01\t0\t.\tN\t.\t.\t.\tweird=\udcff",
        f"chr9\t7\t.\tg\tg[chr1:5[\t.\t.\tAC=1;DNASM_LLR=0.333333333;DNASM_STATUS={status}\tGT\t0/1",
    ]


def test_annotating_twice_replaces(tmp_path: Path) -> None:
    with read_vcf(vcf(tmp_path, text(*RECORDS))) as reader:
        annotate(reader, tmp_path / "one.vcf")
    with read_vcf(tmp_path / "one.vcf") as reader, VcfWriter(tmp_path / "two.vcf", reader.header, [LLR]) as writer:
        for record in reader:
            writer.write(record, {"DNASM_LLR": [-2.0] * len(record.alts)})
    written = (tmp_path / "two.vcf").read_text(errors="surrogateescape")
    assert written.count("##INFO=<ID=DNASM_LLR,") == 1
    assert written.count("DNASM_LLR=-2") == 3
    assert "0.333" not in written


def test_bgzip_with_an_index_that_finds(root: Path, tmp_path: Path) -> None:
    with read_vcf(root / "data/human_chr20_sample.vcf.gz") as reader:
        annotate(reader, tmp_path / "out.vcf.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.vcf.gz", "out.vcf.gz.tbi"]
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz")) as file:
        (record,) = file.fetch("human_chr20_sample", 1134, 1135)
        assert record.info["DNASM_LLR"] == pytest.approx((1 / 3,), rel=1e-5)
        assert sum(1 for _ in file.fetch()) == 4109
    with read_vcf(tmp_path / "out.vcf.gz") as reader:  # a whole bgzip file, with its last block
        assert sum(1 for _ in reader) == 4109


def test_unsorted_records_get_no_index_and_keep_their_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "out.vcf.gz.tbi").write_text("of an older file")
    with read_vcf(vcf(tmp_path, text(*RECORDS))) as reader:
        annotate(reader, tmp_path / "out.vcf.gz")
    assert not (tmp_path / "out.vcf.gz.tbi").exists()
    assert "not sorted" in caplog.text
    with read_vcf(tmp_path / "out.vcf.gz") as reader:
        assert [record.pos for record in reader] == [100, 50, 0, 7]


def test_a_contig_that_comes_back_is_unsorted(tmp_path: Path) -> None:
    rows = ["a\t1\t.\tA\tC\t.\t.\t.", "b\t1\t.\tA\tC\t.\t.\t.", "a\t2\t.\tA\tC\t.\t.\t."]
    with read_vcf(vcf(tmp_path, text(*rows))) as reader:
        annotate(reader, tmp_path / "out.vcf.gz")
    assert not (tmp_path / "out.vcf.gz.tbi").exists()


def test_long_contigs_get_a_csi(tmp_path: Path) -> None:
    with read_vcf(vcf(tmp_path, text("chr1\t600000000\t.\tA\tC\t.\t.\t."))) as reader:
        annotate(reader, tmp_path / "out.vcf.gz")
    with pysam.VariantFile(str(tmp_path / "out.vcf.gz"), index_filename=str(tmp_path / "out.vcf.gz.csi")) as file:
        assert [record.pos for record in file.fetch("chr1", 599_999_999, 600_000_000)] == [600_000_000]


@pytest.mark.parametrize("name", ["out.vcf", "out.vcf.gz"])
def test_nothing_is_left_after_an_error(tmp_path: Path, name: str) -> None:
    path = vcf(tmp_path, text(*RECORDS))

    def fail_halfway() -> None:
        with read_vcf(path) as reader, VcfWriter(tmp_path / name, reader.header, [LLR]) as writer:
            writer.write(next(iter(reader)), {"DNASM_LLR": [0.0]})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_halfway()
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_when_the_index_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pysam, "tabix_index", fail)
    path = vcf(tmp_path, text(*RECORDS[:1]))
    with read_vcf(path) as reader, pytest.raises(OutputError, match=r"out\.vcf\.gz: .*No space left"):
        annotate(reader, tmp_path / "out.vcf.gz")
    assert list(tmp_path.iterdir()) == [path]


def test_output_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    out = tmp_path / "out.vcf.gz"
    monkeypatch.setattr(module, "sync", lambda path: synced.append((path.name.rsplit(".", 1)[-1], out.exists())))
    with read_vcf(vcf(tmp_path, text(*RECORDS[:1]))) as reader:
        annotate(reader, out)
    assert synced == [("gz", False), ("tbi", True), (tmp_path.name.rsplit(".", 1)[-1], True)]


def test_existing_output_is_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "out.vcf").write_text("precious")
    path = vcf(tmp_path, text(*RECORDS))
    with read_vcf(path) as reader, pytest.raises(OutputError, match="exists already"):
        annotate(reader, tmp_path / "out.vcf")
    assert (tmp_path / "out.vcf").read_text() == "precious"
    with read_vcf(path) as reader:
        annotate(reader, tmp_path / "out.vcf", force=True)
    assert (tmp_path / "out.vcf").read_bytes().startswith(b"##fileformat")


def test_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    for name in ("none/out.vcf", "none/out.vcf.gz"):
        with pytest.raises(OutputError, match="cannot be written"):
            VcfWriter(tmp_path / name, HEADER.splitlines(), [LLR])


@pytest.mark.parametrize("values", [{}, {"DNASM_LLR": [1.0, 2.0]}, {"DNASM_LLR": [1.0], "X": [1.0]}])
def test_values_must_fit_the_record(tmp_path: Path, values: dict[str, list[float | str | None]]) -> None:
    with read_vcf(vcf(tmp_path, text(*RECORDS))) as reader:
        writer = VcfWriter(tmp_path / "out.vcf", reader.header, [LLR])
        with pytest.raises(ValueError, match="line 6"):
            writer.write(next(iter(reader)), values)
        writer.__exit__(ValueError, None, None)


def test_standard_output(tmp_path: Path) -> None:
    path = vcf(tmp_path, text(*RECORDS[:2]))
    script = (
        "import sys; from dnasm.genome import *\n"
        "with read_vcf(sys.argv[1]) as r, VcfWriter('-', r.header, [InfoField('X', 'x')]) as w:\n"
        "    [w.write(x, {'X': [1.5] * len(x.alts)}) for x in r]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1].endswith("X=1.5,1.5,1.5")
    assert list(tmp_path.iterdir()) == [path]


def test_limit_of_tbi_is_that_of_the_format() -> None:
    assert module._TBI_LIMIT == 2**29
