"""Make `src/stepsight/weights`, the checkpoint that comes with stepsight, from a run: its averaged
weights in half precision, scored and swept as they are stored.

    uv run python scripts/package_weights.py runs/default-0001      # minutes, on two cores
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from stepsight import DensePipeline
from stepsight.checkpoint import PACKAGED

LIMIT = 4_000_000  # bytes, of all files
LICENCE = "apache-2.0"  # that of the code, which drew all that the weights were trained on


def main(run: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder, "packaged")
        DensePipeline.from_pretrained(run).save_pretrained(stored, dtype="float16")
        for more in ([], ["--sweep"]):
            command = ["-m", "stepsight.cli.main", "evaluate", "--checkpoint", stored.name, *more]
            subprocess.run([sys.executable, *command], cwd=folder, check=True)
        shutil.rmtree(PACKAGED, ignore_errors=True)
        DensePipeline.from_pretrained(stored).save_pretrained(PACKAGED, licence=LICENCE)
    size = sum(path.stat().st_size for path in PACKAGED.rglob("*") if path.is_file())
    if size > LIMIT:
        raise SystemExit(f"{PACKAGED} has {size:,} bytes, more than {LIMIT:,}.")
    print(f"{PACKAGED}: {size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
