"""`stepsight <command>`: one command line; train.py and evaluate.py are two of its commands."""

from __future__ import annotations

from collections.abc import Sequence

from stepsight.cli.entry import Group, guarded

GROUP = Group(
    "stepsight",
    "Dense perception by iterative denoising. Every command also takes --debug, which shows where "
    "an error was raised, and --allow-download, with which a --checkpoint user/name is fetched "
    "from the hub.",
    {
        "train": ("train", "a run: training, evaluation, sweep of test-time compute, report"),
        "evaluate": ("evaluate", "score or sweep checkpoints; score the predictions of others"),
        "predict": ("predict", "depth, flow, masks, classes or normals of your own pictures"),
        "demo": ("overview.demo", "a page in the browser that answers dropped pictures and films"),
        "export": ("overview.export", "a whole answer as one graph, for torch (.pt2) or ONNX"),
        "film": ("film", "how much the depth of films flickers, frame by frame and as predicted"),
        "calibrate": ("overview.calibrate", "metres from a few known distances, for a checkpoint"),
        "study": (
            "overview.study",
            "a paper end to end: a graph of stages, run or priced, with its page",
        ),
        "data": ("data", "check, look at, prepare and shard data sets; baselines and ceilings"),
        "scaling": ("scaling", "what training and sampling compute buy: laws, frontiers, plans"),
        "convert": ("convert", "read published weights, make experts, write published layouts"),
        "protocols": ("protocols", "how predictions become numbers: names, ids, formulas, sources"),
        "doctor": ("overview.doctor", "whether this machine can train this configuration: minutes"),
        "bench": ("bench", "what the work costs beside the peers: ratios, and whether they hold"),
        "steps": ("steps", "the noise levels that a sampler visits, call by call"),
        "compare": ("overview.compare", "costs and scores of several runs, side by side"),
        "report": ("overview.report", "the page of a run, sweep, ladder or study, anew or served"),
    },
)


def main(argv: Sequence[str] | None = None) -> int:
    return guarded(GROUP.run, argv)


if __name__ == "__main__":
    raise SystemExit(main())
