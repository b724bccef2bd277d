import pytest

from dnasm.ops import cpu
from tests.parity.checks import Engine

ENGINES = [
    pytest.param(Engine("reference", "torch"), id="reference"),
    pytest.param(Engine("cpu", "torch"), id="cpu-torch"),
    pytest.param(Engine("cpu", "native"), id="cpu-native"),
]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Each body in turn; the one in plain torch runs as on a machine without a compiler."""
    if request.param == Engine("cpu", "torch"):
        monkeypatch.setattr(cpu, "unavailable", lambda: "no compiler in this test")
    elif request.param == Engine("cpu", "native"):
        assert not cpu.unavailable(), "the C++ kernels must build wherever these tests run"
    return request.param
