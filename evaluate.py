"""Evaluate or sweep a checkpoint: `uv run evaluate.py --checkpoint D [--sweep]`; see `--help`."""

from stepsight.cli.evaluate import main

if __name__ == "__main__":
    raise SystemExit(main())
