"""Check and time the CUDA long convolution on a device, without torch extensions: prints one JSON line a result.

python scripts/gpu_check.py build --out build/gpu/fftconv.so          # needs nvcc, no GPU
python scripts/gpu_check.py check --library build/gpu/fftconv.so      # parity with float64
python scripts/gpu_check.py time --library build/gpu/fftconv.so       # against the copy floor and torch's rfft
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.csrc.kernels import Gradients, Kernels, make_params  # noqa: E402
from tests.csrc.toolchain import CSRC, compile_object, instance_flags, link_library  # noqa: E402

LENGTHS = [256 << i for i in range(8)]
TENSORS = ("u", "in_gate", "out_gate")


def emit(**record: object) -> None:
    print(json.dumps(record), flush=True)


def build(args: argparse.Namespace) -> None:
    """Compile the instances side by side and link them."""
    cache = args.out.parent / "objects"
    nvcc = [
        "nvcc",
        "-std=c++17",
        "-O3",
        "-Xcompiler",
        "-fPIC",
        "-Xptxas",
        "-v",
        *(f"-gencode=arch=compute_{a},code=sm_{a}" for a in args.arch),
    ]
    jobs = [(nvcc, CSRC / "fftconv/launch.cu"), (nvcc, ROOT / "tests/csrc/c_api.cpp")]
    jobs += [([*nvcc, *instance_flags(n, t)], CSRC / "fftconv/instance.cu") for n in args.lengths for t in args.dtypes]
    with ThreadPoolExecutor(args.jobs) as pool:
        objects = list(pool.map(lambda job: compile_object(cache, *job), jobs))
    link_library(args.out, ["nvcc"], [o for o, _ in objects])
    for (command, source), (_, log) in zip(jobs, objects, strict=True):
        registers = [int(line.split("Used ")[1].split()[0]) for line in log.splitlines() if "Used " in line]
        spills = [int(line.split("stores, ")[1].split()[0]) for line in log.splitlines() if "spill loads" in line]
        emit(source=source.name, instance=command[-2:], registers=registers, spill_bytes=spills)


def inputs(b: int, d: int, length: int, taps: int, dtype: torch.dtype, gated: bool) -> dict[str, Tensor]:
    generator = torch.Generator("cuda").manual_seed(length)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, device="cuda", generator=generator)

    tensors = {name: noise(b, d, length).to(dtype) for name in (TENSORS if gated else TENSORS[:1])}
    return tensors | {"k": noise(d, taps), "skip": noise(d), "dy": noise(b, d, length).to(dtype)}


def reference(t: dict[str, Tensor]) -> Tensor:
    u, k, skip = t["u"], t["k"], t["skip"]
    x = u * t["in_gate"] if "in_gate" in t else u
    n = 2 * x.shape[-1]
    k = k[:, : x.shape[-1]]
    y = torch.fft.irfft(torch.fft.rfft(x, n) * torch.fft.rfft(k, n), n)[..., : x.shape[-1]] + skip[:, None] * x
    return y * t["out_gate"] if "out_gate" in t else y


def run(kernels: Kernels, t: dict[str, Tensor]) -> tuple[Tensor, Gradients]:
    gates = {name: t[name] for name in TENSORS[1:] if name in t}
    params = make_params(t["u"], t["k"], skip=t["skip"], **gates)
    keep = kernels.spectrum(params, t["u"].device)
    y = kernels.forward(params, t["u"])
    gradients = kernels.backward(params, t["u"], t["k"], t["dy"])
    torch.cuda.synchronize()
    del keep
    return y, gradients


def worst_row(actual: Tensor, exact: Tensor) -> float:
    error = (actual.double() - exact).norm(dim=-1) / exact.norm(dim=-1)
    return error.max().item()


def check(args: argparse.Namespace) -> None:
    kernels = Kernels(args.library)
    failures = 0
    for length in args.lengths:
        for n, taps in ((length, length), (length - length // 5 - 1, length // 3), (length - 2, 2 * length)):
            for gated in (False, True):
                dtype = getattr(torch, args.dtypes[0])
                t = inputs(3, 5, n, taps, dtype, gated)
                y, g = run(kernels, t)
                wide = {k: v.double().requires_grad_() for k, v in t.items() if k != "dy"}
                exact = reference(wide)
                exact.backward(t["dy"].double())
                errors = {
                    "y": worst_row(y, exact.detach()),
                    "du": worst_row(g.du, wide["u"].grad),
                    "dk": worst_row(g.dk[:, :n], wide["k"].grad[:, :n]),
                }
                if gated:
                    errors["din_gate"] = worst_row(g.din_gate, wide["in_gate"].grad)
                    errors["dout_gate"] = worst_row(g.dout_gate, wide["out_gate"].grad)
                errors["dskip"] = worst_row(g.dskip, wide["skip"].grad)
                again = run(kernels, t)
                same = torch.equal(again[0], y) and torch.equal(again[1].dk, g.dk)
                bad = not same or not all(v < 2.5e-3 for v in errors.values())
                failures += bad
                emit(
                    check=length,
                    n=n,
                    taps=taps,
                    gated=gated,
                    deterministic=same,
                    ok=not bad,
                    **{k: float(f"{v:.3g}") for k, v in errors.items()},
                )
    emit(failures=failures)


def median_ms(run_one: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for i in range(repeats + 3):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run_one()
        stop.record()
        stop.synchronize()
        if i >= 3:
            times.append(start.elapsed_time(stop))
    return statistics.median(times)


def time_all(args: argparse.Namespace) -> None:
    kernels = Kernels(args.library)
    a = torch.randn(1 << 29, device="cuda")
    b = torch.empty_like(a)
    copy = median_ms(lambda: b.copy_(a))
    emit(copy_tb_s=2 * a.numel() * 4 / copy / 1e9, device=torch.cuda.get_device_name())
    del a, b
    dtype = getattr(torch, args.dtypes[0])
    for length in args.lengths:
        batch = max(1, args.elements // (args.channels * length))
        elements = batch * args.channels * length
        for gated in (False, True):
            t = inputs(batch, args.channels, length, length, dtype, gated)
            gates = {name: t[name] for name in TENSORS[1:] if name in t}
            params = make_params(t["u"], t["k"], skip=t["skip"], **gates)
            keep = kernels.spectrum(params, t["u"].device)
            y = kernels.forward(params, t["u"])
            ms = {
                "spectrum": median_ms(lambda p=params: kernels._run("filter_spectrum", p)),
                "forward": median_ms(lambda p=params: kernels._run("forward", p)),
            }
            kernels.backward(params, t["u"], t["k"], t["dy"])
            out = {name: torch.empty_like(t["u"]) for name in ("du", "din_gate", "dout_gate")[: 3 if gated else 1]}
            from tests.csrc.kernels import set_rows

            set_rows(params, **out)
            dk, dskip = torch.empty_like(t["k"]), torch.empty_like(t["skip"])
            params.dk, params.dskip = dk.data_ptr(), dskip.data_ptr()
            scratch = torch.empty(
                kernels.library.dnasm_backward_scratch_bytes(params) + 256, dtype=torch.uint8, device="cuda"
            )
            params.scratch = scratch.data_ptr() + -scratch.data_ptr() % 256
            ms["backward"] = median_ms(lambda p=params: kernels._run("backward", p))
            if args.rfft:
                part = {k: (v[: max(1, batch // 8)] if v.dim() == 3 else v).float() for k, v in t.items() if k != "dy"}
                ms["rfft_forward"] = median_ms(lambda p=part: reference(p), 5) * batch / max(1, batch // 8)
            floor = (8 if gated else 4) * elements / 4.3e12 * 1e3
            emit(length=length, batch=batch, channels=args.channels, gated=gated,
                 ps={k: round(v * 1e9 / elements, 3) for k, v in ms.items()},
                 forward_over_floor=round(ms["forward"] / floor, 2), scratch_mb=scratch.numel() >> 20)  # fmt: skip
            del t, y, keep, out, scratch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["build", "check", "time"])
    parser.add_argument("--library", type=Path, default=ROOT / "build/gpu/fftconv.so")
    parser.add_argument("--out", type=Path, default=ROOT / "build/gpu/fftconv.so")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16"])
    parser.add_argument("--arch", nargs="+", default=["90"])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--elements", type=int, default=3 << 26)
    parser.add_argument("--channels", type=int, default=768)
    parser.add_argument("--rfft", action="store_true")
    args = parser.parse_args()
    start = time.time()
    {"build": build, "check": check, "time": time_all}[args.verb](args)
    emit(seconds=round(time.time() - start, 1))


if __name__ == "__main__":
    main()
