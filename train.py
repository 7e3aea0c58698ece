"""Train: `uv run train.py [--config F]... [--section.key value]...`; see `--help`."""

from stepsight.cli.train import main

if __name__ == "__main__":
    raise SystemExit(main())
