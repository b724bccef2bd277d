"""The host bodies of the hardware operations against the PTX ISA's tables, typed in here; no kernel is included."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.csrc.toolchain import HOST_FLAGS, compile_object, link_library

Position = Callable[[int, int], tuple[int, int]]
rng = np.random.default_rng(0)


# PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": element i of a lane's fragment, as
# (row, column); groupID = %laneid >> 2, threadID_in_group = %laneid % 4.
def a16(lane: int, i: int) -> tuple[int, int]:
    row = lane >> 2 if 0 <= i < 2 or 4 <= i < 6 else (lane >> 2) + 8
    return row, lane % 4 * 2 + (i & 1) if i < 4 else lane % 4 * 2 + (i & 1) + 8


def b16(lane: int, i: int) -> tuple[int, int]:
    return lane % 4 * 2 + (i & 1) if i < 2 else lane % 4 * 2 + (i & 1) + 8, lane >> 2


def c16(lane: int, i: int) -> tuple[int, int]:
    return lane >> 2 if i < 2 else (lane >> 2) + 8, lane % 4 * 2 + (i & 1)


# "Matrix Fragments for mma.m16n8k8", .f16
def a8(lane: int, i: int) -> tuple[int, int]:
    return lane >> 2 if i < 2 else (lane >> 2) + 8, lane % 4 * 2 + (i & 1)


def b8(lane: int, i: int) -> tuple[int, int]:
    return lane % 4 * 2 + i, lane >> 2


@pytest.fixture(scope="module")
def library(objects: Path) -> ctypes.CDLL:
    command = ["g++", *HOST_FLAGS, "-x", "c++"]
    source = Path(__file__).with_name("hardware.cpp")
    return ctypes.CDLL(
        str(link_library(objects / "hardware.so", ["g++"], [compile_object(objects, command, source)[0]]))
    )


def scatter(matrix: NDArray[np.float32], position: Position, count: int) -> NDArray[np.float16]:
    """Each lane's `count` elements of a matrix."""
    return np.array([[matrix[position(lane, i)] for i in range(count)] for lane in range(32)], np.float16)


def address(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


@pytest.mark.parametrize(("k", "a_at", "b_at"), [(16, a16, b16), (8, a8, b8)])
def test_mma_multiplies_by_the_fragment_tables(library: ctypes.CDLL, k: int, a_at: Position, b_at: Position) -> None:
    a, b, c = (rng.standard_normal(shape).astype(np.float16).astype(np.float32) for shape in ((16, k), (k, 8), (16, 8)))
    fragments = scatter(a, a_at, k // 2), scatter(b, b_at, k // 4)
    sums = np.array([[c[c16(lane, i)] for i in range(4)] for lane in range(32)], np.float32)
    library.run_mma(ctypes.c_int(k), address(fragments[0]), address(fragments[1]), address(sums))
    expected = a.astype(np.float64) @ b + c
    found = np.zeros((16, 8))
    for lane in range(32):
        for i in range(4):
            found[c16(lane, i)] = sums[lane, i]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_ldmatrix_trans_hands_out_columns(library: ctypes.CDLL) -> None:
    matrices = rng.integers(0, 1 << 16, (4, 8, 8)).astype(np.uint16)
    out = np.zeros((32, 4, 2), np.uint16)
    library.run_ldmatrix_trans(address(matrices), address(out))
    # "each thread receives a fragment of the matrix": untransposed, lane l holds row l / 4, columns 2 (l % 4) and + 1.
    for lane in range(32):
        for m in range(4):
            assert out[lane, m].tolist() == matrices[m].T[lane >> 2, lane % 4 * 2 : lane % 4 * 2 + 2].tolist()


def test_shuffle_and_maximum(library: ctypes.CDLL) -> None:
    x = rng.standard_normal(32).astype(np.float32)
    swapped, most = np.zeros(32, np.float32), np.zeros(32, np.uint32)
    library.run_shuffle(address(x), ctypes.c_int(5), address(swapped))
    assert swapped.tolist() == x[np.arange(32) ^ 5].tolist()
    words = rng.integers(0, 1 << 31, 32).astype(np.uint32)
    library.run_warp_max(address(words), address(most))
    assert set(most.tolist()) == {words.max()}


def test_conversions_round_to_nearest_even(library: ctypes.CDLL) -> None:
    x = np.concatenate(
        [rng.standard_normal(1000) * 10.0 ** rng.integers(-7, 5, 1000), [0.0, 65519, 65520, 1 + 2**-11, 1 + 3 * 2**-11]]
    )
    x = x.astype(np.float32)
    halves, bfloats = np.zeros(len(x), np.uint32), np.zeros(len(x), np.uint32)
    library.run_pack(ctypes.c_int(len(x)), address(x), address(halves), address(bfloats))
    with np.errstate(over="ignore"):
        assert (halves & 0xFFFF).tolist() == x.astype(np.float16).view(np.uint16).tolist()
    assert (halves >> 16 == halves & 0xFFFF).all()
    bits = x.view(np.uint32).astype(np.uint64)
    assert (bfloats & 0xFFFF).tolist() == ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).tolist()


def test_half2_arithmetic(library: ctypes.CDLL) -> None:
    a, b, c = rng.standard_normal((3, 64, 2)).astype(np.float16)
    product, fused, negated = (np.zeros((64, 2), np.float16) for _ in range(3))
    library.run_half2(ctypes.c_int(64), *map(address, (a, b, c, product, fused, negated)))
    assert (product == a * b).all()
    np.testing.assert_allclose(fused.astype(float), a.astype(float) * b + c, rtol=1e-3, atol=1e-6)
    assert (negated == -a).all()
    low, high = (np.zeros(1, np.uint32) for _ in range(2))
    library.run_halves(ctypes.c_uint32(0x11112222), ctypes.c_uint32(0x33334444), *map(address, (low, high)))
    assert (low[0], high[0]) == (0x44442222, 0x33331111)
