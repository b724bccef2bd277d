"""Calls that a user gets wrong, as a user makes them: without the checks of types that tests switch on.

Prints what each raises, one line a call; `test_odd_calls.py` reads them.
"""

from collections.abc import Callable

import numpy as np
import torch

import dnasm
from dnasm.config import ModelConfig
from dnasm.models import build_model
from dnasm.ops import fftconv, fftconv_step, hyena_operator, short_conv, spectrum

u, k = torch.randn(2, 4, 10), torch.randn(4, 10)
_, state = fftconv_step(u, k)
model = build_model(ModelConfig(d_model=16, num_layers=1, d_inner=16, max_length=64, num_heads=2)).eval()
tokens = torch.randint(7, 11, (1, 10))
genome = dnasm.Genome("dnasm:data/human_chr20_sample.fa.gz")
place = "human_chr20_sample:1-20"

CALLS: dict[str, Callable[[], object]] = {
    "fftconv: list": lambda: fftconv([1.0], k),
    "fftconv: array": lambda: fftconv(u.numpy(), k),
    "fftconv: list and spectrum": lambda: fftconv([1.0], spectrum(k, 10)),
    "fftconv: number": lambda: fftconv(u, k, skip=1.0),
    "fftconv: bounds": lambda: fftconv(u, k, cu_seqlens=[0, 10]),
    "fftconv: spectrum": lambda: fftconv(u, spectrum(k, 10), bidirectional=True),
    "step: state": lambda: fftconv_step(u, k, 3),
    "step: channels": lambda: fftconv_step(torch.randn(2, 5, 10), torch.randn(5, 10), state),
    "step: batch": lambda: fftconv_step(u[:1], k, state),
    "step: taps": lambda: fftconv_step(u, k[:, :9], state),
    "short: number": lambda: short_conv(u, 1.0),
    "short: empty": lambda: short_conv(u[..., :0], torch.randn(4, 3)),
    "hyena: array": lambda: hyena_operator(torch.randn(2, 12, 10), k, short_weight=np.ones((12, 3))),
    "tokens: one row": lambda: model(tokens[0]),
    "tokens: floats": lambda: model(tokens.float()),
    "tokens: empty": lambda: model(tokens[:, :0]),
    "genome: base": lambda: genome["human_chr20_sample", 5],
    "genome: contig": lambda: genome["human_chr20_sample"],
    "embed: path": lambda: dnasm.embed("runs/demo/model", ["ACGT"]),
    "embed: place": lambda: dnasm.embed(model, place),
    "score: path": lambda: dnasm.score_variants("runs/demo/model", ["human_chr20_sample:1000:T:G"], genome),
    "score: tuple": lambda: dnasm.score_variants(model, [("human_chr20_sample", 1000, "T", "G")], genome),
    "generate: path": lambda: dnasm.generate("runs/demo/model", "ACGT"),
    "generate: stop": lambda: dnasm.generate(model, "ACGT", stop="TAA"),
    "mutagenesis: place": lambda: dnasm.mutagenesis(model, place),
}

for name, call in CALLS.items():
    try:
        call()
    except Exception as error:
        print(f"{name}\t{type(error).__name__}\t{error}")
    else:
        print(f"{name}\tnothing\t")
