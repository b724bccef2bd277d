"""What the device compiler makes of the kernels: registers and spills, for sm_80 and sm_90."""

import os
import shutil
from pathlib import Path

import pytest

from tests.csrc.toolchain import CSRC, compile_object, instance_flags, resources

NVCC = ["nvcc", "-std=c++17", "-O3", "-Xptxas", "-v"]
ALL_PLANS = os.environ.get("DNASM_ALL_KERNELS") == "1"  # a quarter of an hour on two cores
PLANS = [256 << i for i in range(8)] if ALL_PLANS else [4096]

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc: device code is compiled where it is")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["80", "90"])
@pytest.mark.parametrize("length", PLANS)
def test_kernels_fit_their_registers(objects: Path, length: int, arch: str) -> None:
    command = [*NVCC, f"-arch=sm_{arch}", *instance_flags(length, "bfloat16")]
    _, log = compile_object(objects, command, CSRC / "fftconv/instance.cu")
    kernels = resources(log)
    assert len(kernels) == 8, f"spectrum, its gradient, and 3 variants each way, but found {list(kernels)}"
    for name, (registers, spills) in kernels.items():
        print(f"sm_{arch} {name}: {registers} registers, {spills} bytes of spill loads")
        if "forward_kernel" in name and "ELi2ELb1E" in name:  # whole, aligned rows: the tuned path
            # Nothing in an inner loop: a few addresses, once a sequence (of 16 or more elements a thread).
            assert spills <= 32, f"{name}: {spills} bytes of spill loads"


@pytest.mark.slow
@pytest.mark.parametrize("precision", [0, 1] if ALL_PLANS else [0])
def test_long_kernels_fit_their_registers(objects: Path, precision: int) -> None:
    flags = instance_flags(65536, "float32" if precision else "bfloat16", precision)
    _, log = compile_object(objects, [*NVCC, "-arch=sm_90", *flags], CSRC / "fftconv/instance.cu")
    for name, (registers, spills) in resources(log).items():
        print(f"sm_90 {name}: {registers} registers, {spills} bytes of spill loads")
        # 80 registers where three blocks an SM measured faster; rows side by side hold two spectra.
        allowed = 80 if "inner_" in name else 32
        assert spills <= allowed, f"{name}: {spills} bytes of spill loads"


@pytest.mark.parametrize("arch", ["80", "90"])
def test_host_code_compiles_for_the_device(objects: Path, arch: str) -> None:
    compile_object(objects, [*NVCC, f"-arch=sm_{arch}"], CSRC / "fftconv/launch.cu")
