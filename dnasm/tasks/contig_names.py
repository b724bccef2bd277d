"""Match the contig names of an input with those of a genome, with and without `chr`."""

import sys

from dnasm.errors import InputError
from dnasm.genome import Genome


class ContigNames:
    """Finds contigs of one genome, and says once that a name is written differently."""

    def __init__(self, genome: Genome, verb: str, *, quiet: bool = False) -> None:
        self._genome = genome
        self._verb = verb
        self._found: dict[str, str | None] = {}
        self._told = quiet

    def find(self, name: str) -> str | None:
        """Find what the genome calls this contig; None if it has none of that name.

        Raises:
            InputError: If another name of the input means the same contig.
        """
        if name not in self._found:
            self._found[name] = self._look_up(name)
        return self._found[name]

    def _look_up(self, name: str) -> str | None:
        known = self._genome.contigs
        contig = next((other for other in (name, *other_names(name)) if other in known), None)
        if contig is None:
            return None
        twin = next((other for other, target in self._found.items() if target == contig), None)
        if twin is not None:
            raise InputError(f"{twin!r} and {name!r} both mean the genome's contig {contig!r}; rename one of them")
        if contig != name and not self._told:
            self._told = True
            print(
                f"dnasm {self._verb}: the genome calls {name!r} {contig!r}; names of all contigs are matched with and "
                "without chr",
                file=sys.stderr,
            )
        return contig


def other_names(name: str) -> list[str]:
    """List how else a contig may be called: with or without `chr`, and M or MT.

    >>> other_names("MT")
    ['chrMT', 'chrM', 'M']
    """
    bare = name[3:] if name.startswith("chr") else name
    bares = [bare, *{"M": ["MT"], "MT": ["M"]}.get(bare, [])]
    names = [form for other in bares for form in (f"chr{other}", other)]
    return [other for other in names if other and other != name]
