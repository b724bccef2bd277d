"""What the device compiler makes of the kernels for few taps: registers and spills, for sm_80 and sm_90."""

import shutil
from pathlib import Path

import pytest

from tests.csrc.test_nvcc import NVCC
from tests.csrc.toolchain import CSRC, DTYPES, compile_object, resources

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc: device code is compiled where it is")


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["80", "90"])
def test_kernels_for_few_taps_fit_their_registers(objects: Path, arch: str) -> None:
    command = [*NVCC, f"-arch=sm_{arch}", f"-DDNASM_DTYPE={DTYPES['bfloat16']}"]
    kernels = resources(compile_object(objects, command, CSRC / "short/short.cu")[1])
    assert len(kernels) == 22, f"direct: 2 ways twice, sums; short: 2 ways, 8 each, sums; but found {list(kernels)}"
    for name, (registers, spills) in kernels.items():
        print(f"sm_{arch} {name}: {registers} registers, {spills} bytes of spill loads")
        if "direct_backward" not in name and "Lb0EEEvNS_6Params" not in name and "ELi8E" not in name:  # the tuned paths
            assert spills == 0, f"{name}: {spills} bytes of spill loads"
        assert spills <= 128, f"{name}: {spills} bytes of spill loads"
