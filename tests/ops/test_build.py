"""The libraries that are built, and what is said about them."""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from dnasm.errors import BackendUnavailable
from dnasm.ops import build, compiler


def test_the_objects_are_those_of_the_dispatch(root: Path) -> None:
    text = (root / "csrc/fftconv/launch.cu").read_text()
    smallest, count = (
        int(match[1]) for name in ("kSmallestPlan", "kPlans") if (match := re.search(rf"{name} = (\d+)", text))
    )
    for plans in build.CUDA_PLANS.values():
        assert plans == tuple(smallest << i for i in range(count))
    header = (root / "csrc/fftconv/launch.h").read_text()
    for name, number in (("kFloat32", "float32"), ("kFloat16", "float16"), ("kBfloat16", "bfloat16")):
        assert f"{name} = {build.CUDA_DTYPES[number]}" in header
    assert "kFast = 0" in header
    assert "kPrecise = 1" in header


def test_the_cuda_dispatch_compiles_links_and_loads_without_cuda(root: Path) -> None:
    assert not torch.cuda.is_available() or torch.version.cuda
    compiler.load(build.cuda_library(), lambda: None)
    assert [torch.ops.dnasm_cuda.plan_length(n, 0) for n in (1, 257, 1 << 40)] == [256, 512, 0]
    assert "int precision) -> (Tensor, Tensor?)" in str(torch.ops.dnasm_cuda.convolve.default._schema)


def test_architectures_are_checked() -> None:
    with pytest.raises(BackendUnavailable, match="sm_90"):
        build.build_cuda(["hopper"])
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailable, match="no GPU here"):
            build.build_cuda([])


def test_kernels_are_built_ahead_of_time_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        compiler.find_tool("nvcc")
    except BackendUnavailable:
        pytest.skip("no nvcc")
    lines: list[str] = []
    monkeypatch.setattr(build, "_objects", lambda: [(256, 2, 0), (512, 2, 0)])
    build.build_cuda(["sm_90"], plans=[256], progress=lines.append)
    assert len(lines) == 2
    library = compiler.ensure(build.cuda_kernels(256, build.CUDA_DTYPES["bfloat16"], 0, "sm_90"))
    symbols = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True, check=True)
    assert "register_kernels" in symbols.stdout
    assert "libcudart" not in symbols.stdout


def test_an_nvcc_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "find_tool", lambda name: "/usr/bin/nvcc")
    monkeypatch.setattr(build, "tool_version", lambda path: "Cuda compilation tools, release 11.8, V11.8.89")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(BackendUnavailable, match=r"is CUDA 11, this torch is built for CUDA 13\.0"):
        build.cuda_kernels(256, 2, 0, "sm_90")
    monkeypatch.setattr(build, "tool_version", lambda path: "something else")
    with pytest.raises(BackendUnavailable, match="does not say its version"):
        build.cuda_kernels(256, 2, 0, "sm_90")


def test_describe_names_every_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DNASM_CACHE", str(tmp_path / "empty"))
    found = build.describe()
    assert {"cache", "g++", "ninja", "nvcc", "cpu kernels"} <= found.keys()
    assert found["cpu kernels"].startswith("not built yet")
    monkeypatch.setattr(build, "find_tool", lambda name: (_ for _ in ()).throw(BackendUnavailable("nothing here")))
    assert build.describe()["g++"] == "unavailable: nothing here"
