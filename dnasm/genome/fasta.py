"""FASTA text to tokens, in one pass over big chunks; every fault names the line and what to do.

Lines may have any width. What a letter means: A C G T are bases, N and the other IUPAC codes become N, lower case is
soft mask. Gaps (`-`, `*`) and, unless read as RNA, U become N too. All but N are counted by letter. Anything else is
an error.
"""

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnasm.errors import InputError
from dnasm.genome.contigs import Contigs
from dnasm.genome.files import BYTE_ORDER_MARK, ByteSource, place_of
from dnasm.genome.runs import Runs, find_runs, join_runs
from dnasm.vocabulary import IUPAC_OTHER, N, T, encode

CHUNK = 1 << 19
"""Bytes read at once; 512 kB stay in the cache: 370 Mb/s on chr20, where 4 MB gave 280 and 16 MB 210."""

MAX_HEADER = 1 << 20
"""Longest header line."""

COUNTED = IUPAC_OTHER + "U-*"
"""Letters that are read as N and counted, in the order of their codes."""

# While a chunk is read, a byte is a token, or 12 + i for letter i of COUNTED, plus 64 where it is lower case.
_FIRST_COUNTED = N + 1
_LOWER = 64
_BREAK = 62  # where a header stood
_BAD = 63


def _code_table(rna: bool) -> bytes:
    table = np.full(256, _BAD, dtype=np.uint8)
    upper = {letter: int(encode(letter)[0]) for letter in "ACGTN"}
    upper |= {letter: _FIRST_COUNTED + i for i, letter in enumerate(COUNTED)}
    if rna:
        upper["U"] = T
    for letter, code in upper.items():
        table[ord(letter.lower())] = code + _LOWER  # before the line below: gaps have no lower case
        table[ord(letter)] = code
    table[ord(">")] = _BREAK
    return table.tobytes()


class FastaScanner:
    """Reads FASTA text once and hands out its tokens; afterwards it knows the contigs, the runs and the counts.

    Attributes:
        contigs: Names and lengths of the contigs that have bases.
        n_runs: Where the token is N, in absolute token offsets.
        mask_runs: Where letters were lower case.
        counted: Rows (contig, index into `COUNTED`, number of letters) of what was read as N, but is no N.
        cut_line: Whether the last line has no line end.
        warnings: What is odd about the file, without being wrong.

    Args:
        path: Named in messages; read again to find the line of an error.
        rna: Read U as T.
        lines_known: Whether the text's lines are those of the file; else messages count records.
    """

    contigs: Contigs
    counted: npt.NDArray[np.int64]

    def __init__(self, path: Path, *, rna: bool = False, lines_known: bool = True) -> None:
        self._path = path
        self._table = _code_table(rna)
        self._lines_known = lines_known
        self._names = bytearray()
        self._header_at = array("q")  # byte of each header in the text
        self._starts = array("q")  # token at which each contig begins
        self._total = 0
        self._position = 0  # bytes of text before the chunk at hand
        self._line_start = True  # whether the chunk at hand begins a line
        self._runs: tuple[list[Runs], list[Runs]] = ([], [])
        self._letters: list[npt.NDArray[np.int64]] = []
        self.warnings: list[str] = []

    @property
    def cut_line(self) -> bool:
        return not self._line_start

    @property
    def n_runs(self) -> Runs:
        return join_runs(self._runs[0])

    @property
    def mask_runs(self) -> Runs:
        return join_runs(self._runs[1])

    def read(self, source: ByteSource) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the tokens of all contigs, one after another.

        Raises:
            InputError: If the text is no FASTA of nucleotides.
        """
        rest = b""
        chunk = source.read(CHUNK)
        if chunk.startswith(BYTE_ORDER_MARK):
            chunk = chunk[len(BYTE_ORDER_MARK) :] or source.read(CHUNK)
            self._position = len(BYTE_ORDER_MARK)
        while chunk:
            following = source.read(CHUNK)
            data = rest + chunk if rest else chunk
            pieces, rest = self._split(data, final=not following)
            yield self._tokens(data, pieces)
            used = len(data) - len(rest)
            if used:
                self._line_start = data[used - 1 : used] == b"\n"
            self._position += used
            chunk = following
        self._finish()

    def _split(self, data: bytes, final: bool) -> tuple[list[tuple[int, int]], bytes]:
        """Take the headers out: the stretches of sequence around them, one more than headers, and what must wait."""
        end = len(data) - data.endswith(b"\r")  # its line feed may be in the next chunk
        self._check_line_ends(data, end)
        stretches: list[tuple[int, int]] = []
        begin = 0
        while (at := data.find(b">", begin, end)) >= 0:
            if not self._header_at:
                self._check_start(data[:at])
            if not (data[at - 1] == ord("\n") if at else self._line_start):
                raise self._error(at, "'>' within a line; a header must begin its line")
            newline = data.find(b"\n", at, end)
            if newline < 0 and not final:
                if len(data) - at > MAX_HEADER:
                    raise self._error(at, f"header longer than {MAX_HEADER:,} bytes; this is no such FASTA")
                return [*stretches, (begin, at)], data[at:]
            stop = newline if newline >= 0 else end
            self._add_header(data[at + 1 : stop], at)
            stretches.append((begin, at))
            begin = stop
        if not self._header_at:
            self._check_start(data[:end])
        return [*stretches, (begin, end)], data[end:]

    def _tokens(self, data: bytes, stretches: list[tuple[int, int]]) -> npt.NDArray[np.uint8]:
        text = data if stretches == [(0, len(data))] else b">".join(data[a:b] for a, b in stretches)
        codes = np.frombuffer(text.translate(self._table, b"\r\n"), dtype=np.uint8)
        if len(stretches) > 1:
            breaks = np.flatnonzero(codes == _BREAK)
            self._starts.frombytes((breaks - np.arange(breaks.size) + self._total).astype(np.int64).tobytes())
            codes = codes[codes != _BREAK]
        if codes.max(initial=0) >= _LOWER:
            self._runs[1].append(find_runs(codes >= _LOWER, self._total))
            codes = codes & np.uint8(_LOWER - 1)
        highest = codes.max(initial=0)
        if highest >= N:
            if highest == _BAD:
                raise self._bad_byte(data, stretches)
            self._runs[0].append(find_runs(codes >= N, self._total))
        if highest > N:
            self._count_letters(codes)
            codes = np.minimum(codes, np.uint8(N))
        self._total += codes.size
        return codes

    def _count_letters(self, codes: npt.NDArray[np.uint8]) -> None:
        where = np.flatnonzero(codes > N)
        contig = np.searchsorted(np.array(self._starts), where + self._total, side="right") - 1
        keys, counts = np.unique(contig * len(COUNTED) + (codes[where] - _FIRST_COUNTED), return_counts=True)
        self._letters.append(np.column_stack([*np.divmod(keys, len(COUNTED)), counts]))

    def _check_line_ends(self, data: bytes, end: int) -> None:
        if b"\r" in data and data.count(b"\r", 0, end) != data.count(b"\r\n", 0, end):
            at = next(i for i in range(end) if data[i] == ord("\r") and data[i + 1 : i + 2] != b"\n")
            raise self._error(
                at, "carriage return without a line feed (line ends of an old Mac?); rewrite the line ends"
            )

    def _check_start(self, before: bytes) -> None:
        text = before.lstrip()
        if text:
            shown = text[:20].decode("latin-1")
            raise self._error(
                len(before) - len(text),
                f"found {shown!r} where a header line beginning with '>' should be; "
                "this is neither FASTA nor GenBank, or its beginning is missing",
            )

    def _add_header(self, header: bytes, at: int) -> None:
        name = header.split(None, 1)[0] if header.strip() else b""
        if not name or header[:1].isspace():
            raise self._error(at, "header without a name; write it right after the '>'")
        if not (name.isascii() and name.decode("ascii").isprintable()) or b"\0" in header:
            raise self._error(at, f"header {header[:40]!r} has bytes that are no printable ASCII in its name")
        self._names += b"\n" + name if self._header_at else name
        self._header_at.append(self._position + at)

    def _bad_byte(self, data: bytes, stretches: list[tuple[int, int]]) -> InputError:
        table = np.frombuffer(self._table, dtype=np.uint8).copy()
        table[[ord("\r"), ord("\n")]] = N
        raw = np.frombuffer(data, dtype=np.uint8)
        first = min(a + i for a, b in stretches for i in np.flatnonzero(table[raw[a:b]] % _LOWER == _BAD)[:1].tolist())
        byte = data[first]
        named = repr(chr(byte)) if 32 < byte < 127 else f"byte 0x{byte:02x}"
        advice = "is this a protein file?" if chr(byte).isalpha() and byte < 128 else "remove or repair the line"
        return self._error(first, f"{named} is no nucleotide code (A C G T U N {IUPAC_OTHER} - *); {advice}")

    def _error(self, at: int, message: str) -> InputError:
        """`message`, after the line and column of byte `at` of the chunk."""
        if not self._lines_known:
            return InputError(f"{self._path}: record {len(self._header_at)}: {message}")
        line, column = place_of(self._path, self._position + at)
        return InputError(f"{self._path}:{line}: column {column}: {message}")

    def _finish(self) -> None:
        if not self._header_at:
            raise InputError(f"{self._path}: holds nothing but blank lines; a FASTA needs a line '>name' and sequence")
        lengths = np.diff(np.array(self._starts), append=self._total)
        every = Contigs(self._names.decode("ascii"), lengths)
        if repeated := every.first_duplicate():
            raise self._duplicate(every.name(repeated[0]), *repeated)
        kept = np.flatnonzero(lengths)
        if not kept.size:
            raise InputError(f"{self._path}: not one base in it (records: {len(every):,}); is the file cut off?")
        self.contigs = every if kept.size == len(every) else _subset(every, kept)
        self._warn(every, lengths)
        self.counted = self._sum_letters(kept)

    def _duplicate(self, name: str, first: int, second: int) -> InputError:
        where = f"records {first + 1} and {second + 1}"
        if self._lines_known:
            one, two = (place_of(self._path, self._header_at[i])[0] for i in (first, second))
            where = f"lines {one} and {two}"
        return InputError(f"{self._path}: two contigs are called {name!r} ({where}); rename or remove one")

    def _warn(self, every: Contigs, lengths: npt.NDArray[np.int64]) -> None:
        empty = np.flatnonzero(lengths == 0)
        if empty.size:
            shown = ", ".join(repr(every.name(int(i))) for i in empty[:5])
            more = ", ..." if empty.size > 5 else ""
            self.warnings.append(f"left out, having no bases (records: {empty.size:,}): {shown}{more}")
        if not self._line_start:
            last = len(every) - 1
            self.warnings.append(
                f"the last line has no line end; contig {every.name(last)!r} stops there with {int(lengths[last]):,} "
                "bases: if it should be longer, the file is cut off"
            )

    def _sum_letters(self, kept: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        rows = np.concatenate([np.empty((0, 3), np.int64), *self._letters])
        keys, place = np.unique(rows[:, :2], axis=0, return_inverse=True)
        sums = np.zeros(len(keys), dtype=np.int64)
        np.add.at(sums, place.ravel(), rows[:, 2])
        return np.column_stack([np.searchsorted(kept, keys[:, 0]), keys[:, 1], sums])


def _subset(contigs: Contigs, kept: npt.NDArray[np.int64]) -> Contigs:
    return Contigs("\n".join(contigs.name(i) for i in kept.tolist()), contigs.lengths[kept])
