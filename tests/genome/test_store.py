"""The store on disk: what is written, when it is fresh, and what survives kills, full disks and several builders."""

import contextlib
import errno
import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import given, settings

from dnasm.errors import InputError, OutputError
from dnasm.genome import Genome, TokenStore
from dnasm.genome import build as build_module
from dnasm.genome.layout import Fingerprint, store_beside, store_in_cache
from dnasm.genome.store import prepare
from tests.genome.naive import letters_of, parse_fasta, runs_of, tokens_of
from tests.genome.test_fasta import fasta_texts

SMALL = b">one some text\nACGTNNac\ngtRN\n>two\nTTTT\n"


@pytest.fixture
def fa(tmp_path: Path) -> Path:
    path = tmp_path / "x.fa"
    path.write_bytes(SMALL)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@settings(max_examples=60)
@given(fasta_texts())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    expected = parse_fasta(data)
    if not expected:
        return
    folder = tmp_path_factory.mktemp("round")
    (folder / "g.fa").write_bytes(data)
    with Genome(folder / "g.fa", quiet=True) as genome:
        assert dict(genome.contigs) == {name: len(sequence) for name, sequence in expected.items()}
        for name, sequence in expected.items():
            n = len(sequence)
            assert genome[name, :] == letters_of(sequence)
            assert genome.tokens(name, 0, n).tolist() == tokens_of(sequence)
            assert genome.tokens(name, n // 3, n - n // 4).tolist() == tokens_of(sequence[n // 3 : n - n // 4])
            assert genome.masked(name, 0, n).tolist() == [letter.islower() for letter in sequence]
            assert genome.mask_runs(name).tolist() == runs_of([letter.islower() for letter in sequence])
            assert genome.n_runs(name).tolist() == runs_of([letter.upper() not in "ACGT" for letter in sequence])
    shutil.rmtree(folder)


def test_files_are_what_the_format_says(fa: Path) -> None:
    found = prepare(fa)
    assert (found.built, found.directory) == (True, store_beside(fa))
    assert names(fa.parent) == ["x.fa", "x.fa.dnasm"]
    assert names(found.directory) == ["arrays.i64", "index.json", "tokens.u8"]
    assert (found.directory / "tokens.u8").read_bytes() == bytes(tokens_of("ACGTNNacgtRNTTTT"))
    index = json.loads((found.directory / "index.json").read_text())
    assert (index["format"], index["version"]) == ("dnasm token store", 1)
    assert (index["names"], index["lengths"]) == ("one\ntwo", [12, 4])
    assert index["fingerprint"]["size"] == len(SMALL)
    assert index["fingerprint"]["mtime_ns"] == fa.stat().st_mtime_ns
    arrays = np.fromfile(found.directory / "arrays.i64", dtype="<i8")
    runs = {name: arrays[s["offset"] // 8 :][: s["rows"] * s["columns"]] for name, s in index["arrays"].items()}
    assert runs["n"].tolist() == [4, 6, 10, 12]
    assert runs["soft_mask"].tolist() == [6, 10]


def test_counts(fa: Path) -> None:
    for built in (True, False):
        found = prepare(fa)
        assert found.built is built
        assert found.n.tolist() == [3, 0]
        assert found.soft_masked.tolist() == [4, 0]
        assert found.letters() == found.letters(0) == {"R": 1}
        assert found.letters(1) == {}


def genbank(folder: Path) -> Path:
    from Bio import SeqIO
    from Bio.Seq import Seq
    from Bio.SeqRecord import SeqRecord

    records = [
        SeqRecord(Seq(sequence), id=f"AB{i}.1", name=f"AB{i}", annotations={"molecule_type": "DNA"})
        for i, sequence in enumerate(["ACGTN" * 40, "GGGRT"])
    ]
    SeqIO.write(records, folder / "x.gb", "genbank")
    return folder / "x.gb"


def test_genbank(tmp_path: Path) -> None:
    path = genbank(tmp_path)
    with Genome(path) as genome:
        assert dict(genome.contigs) == {"AB0.1": 200, "AB1.1": 5}
        assert genome["AB0.1", :] == "ACGTN" * 40
        assert genome["AB1.1", :] == "GGGNT"
    data = path.read_bytes()
    (tmp_path / "y.gbk.gz").write_bytes(gzip.compress(data))
    with Genome(tmp_path / "y.gbk.gz") as genome:
        assert genome.contigs.total == 205


def test_genbank_cut_off_or_without_sequence(tmp_path: Path) -> None:
    data = genbank(tmp_path).read_bytes()
    for name, text in (
        ("cut.gb", data[: data.index(b"       61 ") + 20]),
        ("bare.gb", data[: data.index(b"ORIGIN")] + b"//\n"),
    ):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(InputError, match=rf"{name}: GenBank record 1: "):
            prepare(tmp_path / name)
    assert names(tmp_path) == ["bare.gb", "cut.gb", "x.gb"]


def test_gzip_and_bgzip(tmp_path: Path) -> None:
    (tmp_path / "g.fa.gz").write_bytes(gzip.compress(SMALL))
    with pysam.BGZFile(str(tmp_path / "b.fa.gz"), "wb") as file:
        file.write(SMALL)
    for name in ("g.fa.gz", "b.fa.gz"):
        with Genome(tmp_path / name) as genome:
            assert genome["one", :] == "ACGTNNacgtNN"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.write_bytes(SMALL + b">c\nA\n"), "its size went from 39 to 44 bytes"),
        (lambda path: path.write_bytes(SMALL.replace(b"TTTT", b"TTTA")), "its content changed"),
        (lambda path: os.utime(path, ns=(1, 1)), "it was written again or touched"),
    ],
)
def test_a_changed_genome_is_read_again(fa: Path, caplog: pytest.LogCaptureFixture, change: object, why: str) -> None:
    prepare(fa)
    assert callable(change)
    change(fa)
    with Genome(fa) as genome:
        assert {name: genome[name, :] for name in genome.contigs} == {
            name: letters_of(sequence) for name, sequence in parse_fasta(fa.read_bytes()).items()
        }
    assert f"x.fa.dnasm is stale: {why}" in caplog.text
    assert names(fa.parent) == ["x.fa", "x.fa.dnasm"]
    caplog.clear()
    Genome(fa).close()
    assert not caplog.records


def test_same_size_and_mtime_but_other_content_is_found(fa: Path) -> None:
    prepare(fa)
    before = fa.stat()
    fa.write_bytes(SMALL.replace(b"TTTT", b"TTTA"))
    os.utime(fa, ns=(before.st_atime_ns, before.st_mtime_ns))
    with Genome(fa) as genome:
        assert genome["two", :] == "TTTA"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokens.u8", b"short"),
        ("arrays.i64", b""),
        ("index.json", b"{"),
        ("index.json", b"[]"),
        ("index.json", b"[" * 100_000),
        ("index.json", b"\xff"),
        ("index.json", json.dumps({"format": "dnasm token store", "version": 99}).encode()),
    ],
)
def test_a_damaged_store_is_built_again(fa: Path, caplog: pytest.LogCaptureFixture, file: str, content: bytes) -> None:
    directory = prepare(fa).directory
    (directory / file).write_bytes(content)
    with Genome(fa) as genome:
        assert genome["two", :] == "TTTT"
    assert "x.fa.dnasm is damaged" in caplog.text


def test_force_builds_again_and_rna_too(fa: Path) -> None:
    fa.write_bytes(b">r\nACGU\n")
    first = prepare(fa)
    assert first.letters() == {"U": 1}
    assert prepare(fa, force=True).built
    assert prepare(fa, rna=True).letters() == {}
    with Genome(fa) as genome:  # keeps what was asked for
        assert genome["r", :] == "ACGT"
        os.utime(fa, ns=(5, 5))
    with Genome(fa) as genome:
        assert genome["r", :] == "ACGT"
    assert prepare(fa, rna=False).letters() == {"U": 1}


def test_a_folder_of_that_name_that_is_no_store_is_left_alone(fa: Path) -> None:
    store_beside(fa).mkdir()
    (store_beside(fa) / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match=r"x\.fa\.dnasm: is no token store of dnasm"):
        prepare(fa)
    assert names(fa.parent) == ["x.fa", "x.fa.dnasm"]
    assert names(store_beside(fa)) == ["thesis.tex"]


def test_read_only_folder_sends_the_store_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "ro"
    folder.mkdir()
    fa = folder / "x.fa"
    fa.write_bytes(SMALL)
    monkeypatch.setenv("DNASM_CACHE", str(tmp_path / "cache"))
    real = Path.mkdir

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:  # root may write where a mode forbids it
        if self.parent == folder:
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        real(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with Genome(fa) as genome:
        assert genome["two", :] == "TTTT"
        assert genome.store.directory == store_in_cache(fa)
        assert genome.store.directory.is_relative_to(tmp_path / "cache")
    assert sum("read-only" in record.message for record in caplog.records) == 1
    assert names(folder) == ["x.fa"]
    assert not prepare(fa).built
    caplog.clear()
    fa.write_bytes(SMALL + b"A\n")
    with Genome(fa) as genome:
        assert genome["two", :] == "TTTTA"
    assert "is stale" in caplog.text


def _refuse(self: Path, *args: object, **kwargs: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(self))


def test_a_user_without_a_home_is_told_of_the_cache(fa: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DNASM_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert prepare(fa).built
    shutil.rmtree(store_beside(fa))
    monkeypatch.setattr(Path, "mkdir", _refuse)
    with pytest.raises(OutputError, match=r"no home folder.*set DNASM_CACHE"):
        prepare(fa)


def test_no_place_at_all_says_so(fa: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DNASM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "mkdir", _refuse)
    with pytest.raises(OutputError, match="set DNASM_CACHE to a folder that can be"):
        prepare(fa)


@pytest.mark.parametrize(("failing", "count"), [("fsync", 5), ("rename", 3)])
@pytest.mark.parametrize("at", range(1, 6))
def test_a_write_that_fails_leaves_nothing_new(
    fa: Path, monkeypatch: pytest.MonkeyPatch, failing: str, count: int, at: int
) -> None:
    prepare(fa)
    old = (store_beside(fa) / "index.json").read_bytes()
    calls = 0
    where, name = (os, "fsync") if failing == "fsync" else (Path, "rename")
    real = getattr(where, name)

    def sometimes(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(where, name, sometimes)
    with contextlib.nullcontext() if at > count else pytest.raises(OutputError, match=r"No space left.* are free"):
        prepare(fa, force=True)
    monkeypatch.undo()
    assert names(fa.parent) in (["x.fa", "x.fa.dnasm"], ["x.fa"])  # old, new, or (between the renames) none: never half
    if at == 1:
        assert (store_beside(fa) / "index.json").read_bytes() == old
    with Genome(fa) as genome:
        assert genome["one", :] == "ACGTNNacgtNN"


def script(text: str, *args: object, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(text), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **more)  # type: ignore[call-overload, no-any-return]


def test_what_a_killed_process_left_is_swept(fa: Path) -> None:
    killed = script(
        """
        import os, signal, sys
        from dnasm.genome.store import prepare
        prepare(sys.argv[1], progress=lambda *a: os.kill(os.getpid(), signal.SIGKILL))
        """,
        fa,
    )
    assert killed.returncode == -signal.SIGKILL
    (left,) = [name for name in names(fa.parent) if name.endswith(".tmp")]
    foreign = fa.parent / f".x.fa.dnasm.otherhost.{1 << 30}.{'0' * 8}.tmp"  # no process here has that id
    foreign.mkdir()  # of another machine: it may be alive
    prepare(fa)
    assert left not in names(fa.parent)
    assert foreign.is_dir()


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    fa = tmp_path / "big.fa"
    fa.write_bytes(b">a\n" + b"ACGTACGT\n" * 300_000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = script(
        """
        import sys
        from dnasm.errors import OutputError
        from dnasm.genome.store import prepare
        try:
            prepare(sys.argv[1])
        except OutputError as error:
            print(error)
        """,
        fa,
        preexec_fn=limit,
    )
    assert "big.fa.dnasm: the token store cannot be written: File too large" in done.stdout
    assert names(tmp_path) == ["big.fa"]


def test_many_builders_at_once_agree(tmp_path: Path) -> None:
    fa = tmp_path / "x.fa"
    fa.write_bytes(b">a\n" + b"ACGTTGCA" * 400_000 + b"\n")
    text = """
        import contextlib, sys
        from dnasm.genome import Genome, build
        if sys.argv[2] == "unlocked":
            build.one_builder = lambda genome: contextlib.nullcontext(False)
        with Genome(sys.argv[1]) as genome:
            print(genome["a", 3_199_990:], genome.store.index.build)
    """
    for mode in ("locked", "unlocked"):
        command = [sys.executable, "-c", textwrap.dedent(text), str(fa), mode]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(5)
        ]
        outputs = [process.communicate(timeout=120) for process in running]
        assert [process.returncode for process in running] == [0] * 5, outputs
        assert {out.split()[0] for out, _ in outputs} == {"CAACGTTGCA"}
        if mode == "locked":
            assert len({out.split()[1] for out, _ in outputs}) == 1
        assert names(tmp_path) == ["x.fa", "x.fa.dnasm"]
        shutil.rmtree(store_beside(fa))


def test_a_file_that_changes_while_it_is_read_is_refused(fa: Path) -> None:
    with pytest.raises(InputError, match="while it was being read"):
        prepare(fa, progress=lambda *_: fa.write_bytes(SMALL + b"AC\n"))
    assert names(fa.parent) == ["x.fa"]


def test_fingerprint_looks_at_head_middle_and_tail(tmp_path: Path) -> None:
    path = tmp_path / "x"
    data = bytearray(1_000_000)
    path.write_bytes(data)
    first = Fingerprint.of(path)
    assert first.difference(Fingerprint.of(path)) == ""
    for at in (0, 500_000, 999_999):
        changed = bytearray(data)
        changed[at] = 1
        path.write_bytes(changed)
        assert first.difference(Fingerprint.of(path)) == "its content changed"


FAI = "one\t12\t15\t8\t9\ntwo\t4\t33\t4\t5\n"


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize(
    ("fai", "told"),
    [
        (FAI, None),
        ("one\t12\t15\t8\t9\nempty\t0\t40\t0\t0\ntwo\t4\t33\t4\t5\n", None),
        (FAI.replace("12", "10"), "says contig 'one' has 10 bases, the file has 12"),
        (FAI.replace("two", "three"), "has 'three' where the file has 'two'"),
        (FAI + "z\t7\t50\t7\t8\n", "has a contig 'z' that the file lacks"),
        (FAI.splitlines()[0], "lacks contig 'two'"),
        ("no index\n", "cannot be read"),
    ],
)
def test_a_stale_fai_is_told_and_never_trusted(fa: Path, fai: str, told: str | None, newer: bool) -> None:
    index = fa.with_name("x.fa.fai")
    index.write_text(fai)
    os.utime(index, ns=(1, fa.stat().st_mtime_ns + (10**9 if newer else -(10**9))))
    found = prepare(fa)
    assert index.read_text() == fai
    if told is None:
        assert found.warnings == []
    else:
        assert len(found.warnings) == 1
        assert f"x.fa.fai {told}" in found.warnings[0]
        with pytest.raises(InputError, match=r"x\.fa: x\.fa\.fai"):
            prepare(fa, strict=True, force=True)
    with Genome(fa) as genome:
        assert genome["one", :] == "ACGTNNacgtNN"


def test_fai_or_dict_that_knows_more_proves_a_cut(fa: Path) -> None:
    fa.with_name("x.fa.fai").write_text(FAI)
    fa.write_bytes(SMALL[:-2])
    with pytest.raises(InputError, match=r"is cut off: .* x\.fa\.fai says contig 'two' has 4 bases, the file has 3"):
        prepare(fa)
    assert names(fa.parent) == ["x.fa", "x.fa.fai"]
    fa.with_name("x.fa.fai").unlink()
    fa.with_name("x.dict").write_text("@HD\tVN:1.0\n@SQ\tSN:one\tLN:12\n@SQ\tSN:two\tLN:4\n")
    with pytest.raises(InputError, match=r"is cut off: .* x\.dict says contig 'two' has 4 bases, the file has 3"):
        prepare(fa)


def test_strict_refuses_what_is_odd(fa: Path) -> None:
    fa.write_bytes(SMALL.rstrip(b"\n"))
    assert "no line end" in prepare(fa).warnings[0]
    assert "no line end" in prepare(fa).warnings[0]  # remembered
    with pytest.raises(InputError, match=r"no line end.*strict"):
        prepare(fa, strict=True)
    shutil.rmtree(store_beside(fa))
    with pytest.raises(InputError, match=r"no line end.*strict"):
        prepare(fa, strict=True)
    assert names(fa.parent) == ["x.fa"]


def test_publishing_waits_for_no_reader(fa: Path) -> None:
    with Genome(fa) as genome:
        prepare(fa, force=True)
        assert genome["one", :] == "ACGTNNacgtNN"  # still reads the folder that it opened
        with pytest.raises(FileNotFoundError):
            TokenStore(fa.parent / "none")
    assert build_module.BLOCK == 1024


def test_a_reader_stays_small_whatever_the_genome(tmp_path: Path) -> None:
    """A million contigs, two million soft-mask runs: what a reader adds to a bare interpreter with numpy."""
    fa = tmp_path / "many.fa"
    n = 1_000_000
    with fa.open("w") as file:
        file.writelines(f">scaffold_{i}\nACGacgTTacAA\n" for i in range(n))
    prepared = script(  # in another process, so that jaxtyping does not check each of a million headers
        "import sys; from dnasm.genome.store import prepare; print(set(prepare(sys.argv[1]).soft_masked.tolist()))", fa
    )
    assert prepared.stdout == "{5}\n", prepared.stderr
    done = script(
        """
        import resource, sys
        import numpy as np
        import dnasm.genome.genome
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before = peak()
        genome = dnasm.genome.genome.Genome(sys.argv[1])
        assert genome["scaffold_765432", :] == "ACGacgTTacAA"
        offsets = np.random.default_rng(0).integers(0, genome.contigs.total - 1000, 2000)
        genome.read(offsets, 1000)
        genome.read_masked(offsets, 1000)
        print(peak() - before)
        """,
        fa,
    )
    assert float(done.stdout) < 100, done.stderr
