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
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.csrc.kernels import Kernels, Params, make_params, set_rows  # noqa: E402
from tests.csrc.toolchain import CSRC, compile_object, instance_flags, link_library, resources  # noqa: E402

LENGTHS = [*(256 << i for i in range(8)), 65536, 1 << 20]
LONG = 65536  # the objects of this length serve all longer ones
TENSORS = ("u", "in_gate", "out_gate")
FAST, FLOAT32 = 0, 1


def emit(**record: object) -> None:
    print(json.dumps(record), flush=True)


def build(args: argparse.Namespace) -> None:
    """Compile the instances side by side and link them."""
    cache = args.out.parent / "objects"
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in args.arch]
    nvcc = ["nvcc", "-std=c++17", "-O3", "-Xcompiler", "-fPIC", "-Xptxas", "-v", *targets]
    plans = sorted({min(n, LONG) for n in args.lengths})
    wanted = [(n, dtype, FAST) for n in plans for dtype in args.dtypes]
    wanted += [(n, "float32", FLOAT32) for n in sorted({n if n <= 16384 else LONG for n in plans})]
    jobs = [(nvcc, CSRC / "fftconv/launch.cu"), (nvcc, ROOT / "tests/csrc/c_api.cpp")]
    jobs += [([*nvcc, *instance_flags(*instance)], CSRC / "fftconv/instance.cu") for instance in wanted]
    with ThreadPoolExecutor(args.jobs) as pool:
        objects = list(pool.map(lambda job: compile_object(cache, *job), jobs))
    link_library(args.out, ["nvcc"], [o for o, _ in objects])
    for (command, source), (_, log) in zip(jobs, objects, strict=True):
        if source.name == "instance.cu":
            emit(instance=command[-3:], kernels=resources(log))


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


def parameters(t: dict[str, Tensor], precision: int) -> Params:
    gates = {name: t[name] for name in TENSORS[1:] if name in t}
    return make_params(t["u"], t["k"], skip=t["skip"], precision=precision, **gates)


def run(kernels: Kernels, t: dict[str, Tensor], precision: int) -> dict[str, Tensor]:
    """Results and every gradient; outputs and scratch start as NaNs."""
    params = parameters(t, precision)
    keep = kernels.spectrum(params, t["u"].device)
    results = {"y": kernels.forward(params, t["u"])}
    gradients = kernels.backward(params, t["u"], t["k"], t["dy"])
    torch.cuda.synchronize()
    del keep
    return results | {name: value for name, value in vars(gradients).items() if value is not None}


def exact(t: dict[str, Tensor]) -> dict[str, Tensor]:
    wide = {k: v.double().requires_grad_() for k, v in t.items() if k != "dy"}
    y = reference(wide)
    y.backward(t["dy"].double())
    names = {"u": "du", "k": "dk", "in_gate": "din_gate", "out_gate": "dout_gate", "skip": "dskip"}
    return {"y": y.detach()} | {names[k]: v.grad for k, v in wide.items()}


def worst_row(actual: Tensor, wanted: Tensor) -> float:
    return ((actual.double() - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max().item()


def check(args: argparse.Namespace) -> None:
    """White noise: two runs the same to the bit, and within what its dtype and route allow."""
    kernels, failures = Kernels(args.library), 0
    routes = [(getattr(torch, dtype), FAST, 2.5e-3) for dtype in args.dtypes] + [(torch.float32, FLOAT32, 1e-5)]
    cases = [(n, gated, *route) for n in args.lengths for gated in (False, True) for route in routes]
    for length, gated, dtype, precision, allowed in cases:
        for n, taps in ((length, length), (length - length // 5 - 1, length // 3), (length - 2, 2 * length)):
            t = inputs(3, 5, n, taps, dtype, gated)
            found, again, wanted = run(kernels, t, precision), run(kernels, t, precision), exact(t)
            errors = {name: worst_row(value, wanted[name]) for name, value in found.items() if name != "dskip"}
            same = all(torch.equal(again[name], value) for name, value in found.items())
            # dskip sums products of operands rounded to fp16, which may all but cancel
            errors["dskip"] = ((found["dskip"] - wanted["dskip"]).abs().max() / (t["u"].numel() / 5) ** 0.5).item()
            ok = same and all(error <= allowed for error in errors.values())
            failures += not ok
            numbers = {name: float(f"{error:.3g}") for name, error in errors.items()}
            emit(check=length, n=n, taps=taps, gated=gated, precision=precision, deterministic=same, ok=ok, **numbers)
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


def time_case(kernels: Kernels, t: dict[str, Tensor], precision: int) -> dict[str, float]:
    """Milliseconds of each function, everything allocated beforehand."""
    params = parameters(t, precision)
    keep = [kernels.spectrum(params, t["u"].device)]
    ms = {"spectrum": median_ms(lambda: kernels.call("filter_spectrum", params))}
    keep.append(kernels.forward(params, t["u"]))
    keep.append(kernels.scratch("forward", params, t["u"].device))
    ms["forward"] = median_ms(lambda: kernels.call("forward", params))
    out = {f"d{name}": torch.empty_like(t["u"]) for name in TENSORS if name in t}
    set_rows(params, dy=t["dy"], **out)
    sums = torch.empty_like(t["k"]), torch.empty_like(t["skip"])
    params.dk, params.dskip = sums[0].data_ptr(), sums[1].data_ptr()
    keep.append(kernels.scratch("backward", params, t["u"].device))
    ms["backward"] = median_ms(lambda: kernels.call("backward", params))
    return ms


def time_all(args: argparse.Namespace) -> None:
    """Picoseconds an element, beside the copy floor and torch's rfft."""
    kernels = Kernels(args.library)
    a = torch.randn(1 << 29, device="cuda")
    b = torch.empty_like(a)
    copy = 2 * a.numel() * 4 / median_ms(lambda: b.copy_(a)) / 1e9
    emit(copy_tb_s=copy, device=torch.cuda.get_device_name(), torch=torch.__version__)
    del a, b
    routes = [(getattr(torch, args.dtypes[0]), FAST)] + ([(torch.float32, FLOAT32)] if args.float32 else [])
    for length, gated, (dtype, precision) in product(args.lengths, (False, True), routes):
        channels = min(args.channels, max(1, args.elements // (4 * length)))  # at least four sequences of each
        batch = max(1, args.elements // (channels * length))
        elements = batch * channels * length
        t = inputs(batch, channels, length, length, dtype, gated)
        ms = time_case(kernels, t, precision)
        if args.rfft:
            few = max(1, batch // 8)
            part = {k: (v[:few] if v.dim() == 3 else v).float() for k, v in t.items() if k != "dy"}
            ms["rfft_forward"] = median_ms(lambda p=part: reference(p), 5) * batch / few  # type: ignore[misc]
        floor = t["u"].element_size() * (4 if gated else 2) / copy
        ps = {name: round(value * 1e9 / elements, 3) for name, value in ms.items()}
        over = round(ps["forward"] / floor, 2)
        emit(length=length, batch=batch, gated=gated, precision=precision, ps=ps, forward_over_floor=over)
        del t


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
    parser.add_argument("--float32", action="store_true", help="time the float32 route too")
    args = parser.parse_args()
    start = time.time()
    {"build": build, "check": check, "time": time_all}[args.verb](args)
    emit(seconds=round(time.time() - start, 1))


if __name__ == "__main__":
    main()
