"""The wheel carries what a user needs, and the verbs run from it in an empty folder."""

from pathlib import Path

import pytest

from tests.conftest import Installation

pytestmark = pytest.mark.slow


def test_verbs_run_from_the_wheel(installed: Installation, root: Path, tmp_path: Path) -> None:
    script = """
    python - <<'PY'
import dnasm, sys
from dnasm.resources import resource
assert "torch" not in sys.modules
for name in ("csrc", "configs/demo.yaml", "data/README.md", "presets.yaml"):
    assert resource(name).exists(), name
print(dnasm.__file__)
for extra in ("pyarrow", "anndata", "zarr", "pyBigWig", "hypothesis", "pytest"):
    try:
        __import__(extra)
    except ImportError:
        continue
    sys.exit(f"{extra} is there, which the wheel does not declare")
PY
    dnasm doctor
    shipped=$(python -c 'from dnasm.resources import resource; print(resource("data"))')
    gunzip -c "$shipped/human_chr20_sample.fa.gz" > human.fa
    dnasm prepare human.fa
    dnasm pretrain --config dnasm:configs/demo.yaml --out planned --dry-run
    test ! -e planned
    dnasm pretrain --config dnasm:configs/demo.yaml --out run --trainer.max-steps 3 --trainer.max-minutes null \\
        --trainer.validate-every 3 --data.validation-windows 4 --trainer.require-below-markov false
    dnasm score --model run/model --genome human.fa --variants dnasm:data/human_chr20_sample.vcf.gz \\
        --out all.tsv --window 64
    """
    outcome = installed.run(script, tmp_path)
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr[-3000:]
    assert str(root) not in outcome.stdout.splitlines()[0]
    rows = (tmp_path / "all.tsv").read_text().splitlines()
    assert len(rows) > 4_000
