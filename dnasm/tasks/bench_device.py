"""What every bench measures alike: seconds of a call on a device, and what that device can do at best."""

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch

from dnasm.tasks.bench import Row, say, seconds

_COPY_BYTES = 1 << 28
_MATRIX = 8192
_TURNS = 7
_CYCLES = 4_000_000  # about 2 ms, longer than any call takes to launch


def pick(device: str) -> str:
    """Resolve `auto`."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def timed(device: str, work: Callable[[], object], *, queued: bool = False) -> float:
    """Seconds of one call: events on a GPU, whose work is asynchronous, the clock elsewhere.

    Args:
        device: Where it runs.
        work: The call.
        queued: Let a GPU be busy when the call comes, as in the middle of a model: what counts is its own time then. A
            call that finds it idle takes the host's time too, where that is longer.
    """
    if not device.startswith("cuda"):
        return seconds(work)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    if queued:
        torch.cuda._sleep(_CYCLES)  # type: ignore[no-untyped-call]
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def median_seconds(device: str, work: Callable[[], object], turns: int = _TURNS) -> float:
    """Median of a few calls, the first of which is not counted."""
    return statistics.median([timed(device, work, queued=True) for _ in range(turns + 1)][1:])


def copy_bandwidth(device: str) -> float:
    """Bytes a second, read and written, of a copy that no cache holds."""
    source = torch.ones(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_seconds(device, partial(target.copy_, source))


def ceilings(device: str) -> Iterator[Row]:
    """Yield what this GPU reaches in a copy and in a product of random bfloat16 matrices; nothing for a CPU."""
    if not device.startswith("cuda"):
        return
    say("ceilings: a copy and a matrix product")
    a, b = (torch.randn(_MATRIX, _MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = median_seconds(device, partial(torch.mm, a, b))
    yield {
        "case": "ceilings",
        "device": torch.cuda.get_device_name(device),
        "cuda": torch.version.cuda,
        "copy_bytes_per_second": copy_bandwidth(device),
        "matrix_product_flops": 2 * _MATRIX**3 / product,
    }
