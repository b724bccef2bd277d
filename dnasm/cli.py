"""The command line: `dnasm VERB` fills one config dataclass and runs one task.

Exit codes: 0 done, 1 bug, 2 usage or config, 65 bad input, 73 and 74 cannot write, 130 interrupted, 141 the reader of
standard output went away, 143 terminated. Results go to standard output, talk to standard error.
"""

import errno
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from types import FrameType
from typing import Any

from dnasm import __version__
from dnasm.errors import ConfigError, DnasmError


@dataclass(frozen=True, slots=True)
class Verb:
    """One row of the table: what `dnasm NAME` takes and what it runs."""

    config: str
    """Dataclass in dnasm.config."""
    module: str
    """Module in dnasm.tasks, whose `run(config)` does the work."""
    help: str
    """One line."""
    example: str
    """A command that works after `make demo`, or anywhere if it uses shipped files alone."""
    positionals: tuple[str, ...] = ()
    """Settings that may be given without their name, in this order."""


_HUMAN = "--genome dnasm:data/human_chr20_sample.fa.gz"
VERBS = {
    "prepare": Verb(
        "PrepareConfig",
        "prepare",
        "FASTA or GenBank -> token store beside it, and a report of what was found",
        "dnasm prepare dnasm:data/human_chr20_sample.fa.gz",
        ("genome",),
    ),
    "pretrain": Verb(
        "PretrainConfig",
        "pretrain",
        "genomes -> run directory with checkpoints, metrics and the exported best model",
        "dnasm pretrain --config dnasm:configs/demo.yaml --out runs/mine --dry-run",
    ),
    "export": Verb(
        "ExportConfig",
        "export",
        "run directory or Lightning checkpoint -> model directory",
        "dnasm export --run runs/demo --checkpoint last --out runs/demo-last",
    ),
    "import": Verb(
        "ImportConfig",
        "convert",
        "HyenaDNA or H3 checkpoint -> model directory",
        "dnasm export --run runs/demo --format hyenadna --out demo-hyenadna && "
        "dnasm import hyenadna demo-hyenadna --out demo-imported",
        ("kind", "path"),
    ),
    "score": Verb(
        "ScoreConfig",
        "score",
        "variants -> scores by one of six methods, one row per ALT",
        f"dnasm score --model runs/demo/model {_HUMAN} --variants human_chr20_sample:1000:T:G --out -",
    ),
    "embed": Verb(
        "EmbedConfig",
        "embed",
        "regions or sequences -> one vector each",
        "dnasm embed --model runs/demo/model --genome dnasm:data/yeast_r64.fa.gz "
        "--regions dnasm:data/yeast_chrVIII_genes.bed --out genes.npz",
    ),
    "likelihood": Verb(
        "LikelihoodConfig",
        "likelihood_tracks",
        "genome or regions -> log-likelihood and entropy of every base, as bigWig or bedGraph",
        "dnasm likelihood --model runs/demo/model --genome dnasm:data/yeast_r64.fa.gz --regions chrVIII:1-2000 --out -",
    ),
    "mutagenesis": Verb(
        "MutagenesisConfig",
        "mutagenesis",
        "region -> score of every substitution and single-base deletion: table, heat map, logo",
        f"dnasm mutagenesis --model runs/demo/model {_HUMAN} --region human_chr20_sample:1-20 --window 256 --out -",
    ),
    "generate": Verb(
        "GenerateConfig",
        "generate",
        "prompt -> sequences that follow it, as FASTA",
        "dnasm generate --model runs/demo/model --prompt ACGTTGCA --n 2 --length 60 --out -",
    ),
    "report": Verb(
        "ReportConfig",
        "report",
        "run directory, scores, labels, tracks -> one self-contained HTML page",
        "dnasm report --run runs/demo --out report.html",
    ),
    "bench": Verb(
        "BenchConfig",
        "bench",
        "ours beside what a user would use instead, one JSON line a row",
        "dnasm bench start --repeats 1",
        ("what",),
    ),
    "doctor": Verb(
        "DoctorConfig",
        "doctor",
        "GPU, compiler, extension, versions, cache, disk: what works here and what to do about the rest",
        "dnasm doctor",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing but a bug raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview(), file=sys.stdout if words else sys.stderr)
        return 0 if words else ConfigError.exit_code
    if words[0] == "--version":
        print(f"dnasm {__version__}")
        return 0
    verb = words[0]
    try:
        with _terminated_by_signal():
            run_verb(verb, words[1:])
            sys.stdout.flush()
        return 0
    except DnasmError as error:
        print(f"dnasm {verb}: error: {_one_line(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"dnasm {verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # What is still buffered for standard output has nowhere to go; without this Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG):
            raise
        print(f"dnasm {verb}: error: cannot write: {error}", file=sys.stderr)
        return 74
    except _Terminated:
        print(f"dnasm {verb}: terminated", file=sys.stderr)
        return 143


def run_verb(verb: str, argv: Sequence[str]) -> None:
    """Fill the verb's config from `argv` and run its task; import nothing that another verb needs.

    Raises:
        DnasmError: If the verb, a setting or an input is wrong, or an output cannot be written.
    """
    if verb not in VERBS:
        close = get_close_matches(verb, VERBS, n=1, cutoff=0.0)
        raise ConfigError(f"there is no such verb; the nearest is {close[0]} (dnasm --help lists them)")
    row = VERBS[verb]
    from dnasm import arguments, config

    kind: type[Any] = getattr(config, row.config)
    parser = arguments.build_parser(kind, f"dnasm {verb}", row.positionals, row.example)
    if {"-h", "--help"} & set(argv):
        parser.print_help()
        return
    given = arguments.read_arguments(argv, kind, row.positionals)
    filled = arguments.fill(kind, parser, given)
    if given.print_config:
        print(config.to_yaml(filled), end="")
        return
    with _log_on_stderr(verb, quiet=getattr(filled, "quiet", False)):
        importlib.import_module(f"dnasm.tasks.{row.module}").run(filled)


@contextmanager
def _log_on_stderr(verb: str, *, quiet: bool) -> Iterator[None]:
    """Print what dnasm's own modules log, as `dnasm VERB: warning: ...`; plain information unless quiet."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_lower_level)
    handler.setFormatter(logging.Formatter(f"dnasm {verb}: %(kind)s%(message)s"))
    logger = logging.getLogger("dnasm")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _lower_level(record: logging.LogRecord) -> bool:
    record.kind = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
    return True


def overview() -> str:
    """Text of `dnasm --help`."""
    width = max(map(len, VERBS))
    rows = [f"  {name:<{width}}  {verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: dnasm VERB [--config YAML] [--NAME VALUE ...]",
            "",
            "Long-context DNA foundation models, one base per token.",
            "",
            *rows,
            "",
            "`dnasm VERB --help` lists the settings of a verb and ends with an example.",
            "To begin: `dnasm doctor`, then `dnasm pretrain --config dnasm:configs/demo.yaml --out run` (4 minutes).",
        ]
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


class _Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt it passes every `except Exception`."""


@contextmanager
def _terminated_by_signal() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that temporary files are removed on the way out."""
    if threading.current_thread() is not threading.main_thread():  # only there may signal handlers be set
        yield
        return

    def handler(signum: int, frame: FrameType | None) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
