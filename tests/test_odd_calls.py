"""What a user gets wrong is answered with the argument's name and the way out, never with a crash or a wrong number."""

import subprocess
import sys
from pathlib import Path

MESSAGES = {
    "fftconv: list": ("TypeError", "u is a list; it must be a tensor: torch.as_tensor(u)"),
    "fftconv: array": ("TypeError", "u is a ndarray; it must be a tensor"),
    "fftconv: list and spectrum": ("TypeError", "u is a list; it must be a tensor"),
    "fftconv: number": ("TypeError", "skip is a float; it must be a tensor: torch.as_tensor(skip)"),
    "fftconv: bounds": ("TypeError", "cu_seqlens is a list; it must be a tensor"),
    "fftconv: spectrum": ("ValueError", "made with bidirectional=False, the call has True: make it by spectrum("),
    "step: state": ("ValueError", "state is int, chunk and k need (2, 4, 9): pass what the last step returned"),
    "step: channels": ("ValueError", "state is (2, 4, 9), chunk and k need (2, 5, 9)"),
    "step: batch": ("ValueError", "state is (2, 4, 9), chunk and k need (1, 4, 9)"),
    "step: taps": ("ValueError", "state is (2, 4, 9), chunk and k need (2, 4, 8)"),
    "short: number": ("TypeError", "weight is a float; it must be a tensor"),
    "short: empty": ("ValueError", "x has shape (2, 4, 0): no positions to convolve"),
    "hyena: array": ("TypeError", "short_weight is a ndarray; it must be a tensor"),
    "tokens: one row": ("ConfigError", "tokens have shape (10,); a model takes (batch, length): tokens[None]"),
    "tokens: floats": ("ConfigError", "tokens are torch.float32; they must be integers: tokens.long()"),
    "tokens: empty": ("ConfigError", "tokens have shape (1, 0): there is nothing to read"),
    "genome: base": ("TypeError", "write genome[contig, start:end], 0-based, end excluded"),
    "genome: contig": ("TypeError", "write genome[contig, start:end], 0-based, end excluded"),
    "embed: path": ("ConfigError", "model is 'runs/demo/model'; it must be a model, such as dnasm.load(DIRECTORY)"),
    "embed: place": ("InputError", "for a place as chr8:1-20,000 the genome that it is on"),
    "score: path": ("ConfigError", "model is 'runs/demo/model'; it must be a model"),
    "score: tuple": ("InputError", "is no variant; give dnasm.Variant(contig, pos, ref, alt) or 'contig:pos:ref:alt'"),
    "generate: path": ("ConfigError", "model is 'runs/demo/model'; it must be a model"),
    "generate: stop": ("ConfigError", "stop is 'TAA', one string; it must be a list of sequences"),
    "mutagenesis: place": ("InputError", "'human_chr20_sample:1-20' is no sequence; for a place pass the genome"),
}


def test_odd_calls_are_answered_by_name() -> None:
    script = Path(__file__).with_name("odd_calls.py")
    outcome = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert outcome.returncode == 0, outcome.stderr[-3000:]
    found = {name: (kind, said) for name, kind, said in (row.split("\t") for row in outcome.stdout.splitlines())}
    assert found.keys() == MESSAGES.keys()
    wrong = {
        name: found[name]
        for name, (kind, said) in MESSAGES.items()
        if found[name][0] != kind or said not in found[name][1]
    }
    assert not wrong
