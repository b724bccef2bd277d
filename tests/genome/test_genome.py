import gzip
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dnasm.errors import InputError
from dnasm.genome import Genome, Interval
from dnasm.genome.store import prepare
from tests.genome.naive import letters_of, parse_fasta, tokens_of

TEXT = b">one\nACGTNNac\ngtRN\n>two\nTTTTgggg\n"


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    (tmp_path / "x.fa").write_bytes(TEXT)
    return Genome(tmp_path / "x.fa")


def test_letters(genome: Genome) -> None:
    assert genome["one", 2:8] == "GTNNac"
    assert genome["one", :] == "ACGTNNacgtNN"
    assert genome["two", 6:] == "gg"
    assert genome["two", 3:3] == ""
    assert genome[Interval("two", 2, 6)] == "TTgg"


def test_absolute_offsets(genome: Genome) -> None:
    assert (genome.offset("one"), genome.offset("two")) == (0, 12)
    whole = tokens_of("ACGTNNacgtRNTTTTgggg")
    windows = genome.read(np.array([0, 10, 15]), 5)
    assert windows.dtype == np.uint8
    assert windows.tolist() == [whole[0:5], whole[10:15], whole[15:20]]
    masks = genome.read_masked(np.array([4, 14]), 6)
    assert masks.tolist() == [[False] * 2 + [True] * 4, [False] * 2 + [True] * 4]
    assert genome.read(np.array([], dtype=np.int64), 7).shape == (0, 7)
    assert genome.read(np.array([3, 20]), 0).shape == (2, 0)


def test_runs_are_those_of_the_contig(genome: Genome) -> None:
    assert genome.n_runs("one").tolist() == [[4, 6], [10, 12]]
    assert genome.n_runs("two").tolist() == []
    assert genome.mask_runs("one").tolist() == [[6, 10]]
    assert genome.mask_runs("two").tolist() == [[4, 8]]
    assert genome.masked("two", 3, 6).tolist() == [False, True, True]


@pytest.mark.parametrize(("start", "end"), [(-1, 3), (3, 2), (0, 13), (13, 13)])
def test_a_range_outside_is_an_error(genome: Genome, start: int, end: int) -> None:
    for read in (genome.tokens, genome.masked):
        with pytest.raises(InputError, match=rf"one:{start}-{end} is no range within its 12 bases"):
            read("one", start, end)
    with pytest.raises(InputError, match="is no range"):
        genome["one", start:end]


def test_windows_outside_are_an_error(genome: Genome) -> None:
    for offsets in ([-1, 3], [3, 16]):
        with pytest.raises(IndexError, match="leave the 20 tokens"):
            genome.read(np.array(offsets), 5)


def test_unknown_contig_names_near_ones(genome: Genome) -> None:
    with pytest.raises(InputError, match=r"x\.fa has no contig 'chrone'; it has 'one' \(the prefix 'chr' differs\)"):
        genome.tokens("chrone", 0, 1)
    with pytest.raises(InputError, match="has no contig 'tow'"):
        genome.offset("tow")
    assert "three" not in genome.contigs


def test_a_step_is_refused(genome: Genome) -> None:
    with pytest.raises(ValueError, match="has a step"):
        genome["one", 0:5:2]


def test_closed_genome_says_so(genome: Genome) -> None:
    genome.close()
    with pytest.raises(ValueError, match="was closed; open it again"):
        genome.tokens("one", 0, 3)
    genome.close()


def test_pickle_reads_the_same_store(genome: Genome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = pickle.loads(pickle.dumps(genome))
    assert other["one", :] == genome["one", :]
    packed = pickle.dumps(genome)
    genome.path.write_bytes(TEXT + b"A\n")
    with pytest.raises(InputError, match="changed since this program opened it"):
        pickle.loads(packed)
    assert list(tmp_path.glob(".*")) == []  # and a worker builds nothing


def test_a_store_that_was_built_otherwise_is_not_unpickled(genome: Genome) -> None:
    packed = pickle.dumps(genome)
    prepare(genome.path, rna=True)
    with pytest.raises(InputError, match="changed since this program opened it"):
        pickle.loads(packed)


def test_a_relative_path_may_be_pickled(genome: Genome, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(Genome("x.fa"))
    monkeypatch.chdir("/")
    assert pickle.loads(packed)["two", :4] == "TTTT"


def test_a_store_cut_off_under_a_reader_is_an_error(genome: Genome) -> None:
    os.truncate(genome.store.directory / "tokens.u8", 15)
    assert genome["one", :3] == "ACG"
    with pytest.raises(InputError, match="was cut off at byte 15"):
        genome.tokens("two", 0, 8)


def test_odd_paths(tmp_path: Path) -> None:
    folder = tmp_path / "mit Leerzeichen und ümläut [1]"
    folder.mkdir()
    (folder / "my genome.fa").write_bytes(TEXT)
    with Genome(str(folder / "my genome.fa")) as genome:
        assert genome["two", :] == "TTTTgggg"
    assert sorted(path.name for path in folder.iterdir()) == ["my genome.fa", "my genome.fa.dnasm"]


def test_descriptors_do_not_leak(genome: Genome) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for _ in range(20):
        Genome(genome.path)
    assert count() == before


def test_shared_by_threads_and_forks(root: Path, tmp_path: Path) -> None:
    """A million reads of a handle opened in the parent, by 8 threads and 4 forks at once, against a naive reader."""
    (tmp_path / "yeast.fa").write_bytes(gzip.decompress((root / "data/yeast_r64.fa.gz").read_bytes()))
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", Path(__file__).with_name("share.py")]
    done = subprocess.run([*command, tmp_path / "yeast.fa"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    reads, wrong, contigs, ends = map(int, done.stdout.split())
    assert reads >= 1_000_000
    assert wrong == 0
    assert contigs == 16
    assert ends > 100_000


def test_real_genome_against_the_naive_reader(root: Path, tmp_path: Path) -> None:
    data = gzip.decompress((root / "data/human_chr20_sample.fa.gz").read_bytes())
    (tmp_path / "h.fa").write_bytes(data)
    ((name, sequence),) = parse_fasta(data).items()
    with Genome(tmp_path / "h.fa") as genome:
        assert genome[name, :] == letters_of(sequence)
