"""What draws and fits is loaded when there is something to draw and to fit, not before a step."""

import subprocess
import sys

SLOW = ("jinja2", "matplotlib", "scipy", "torchvision", "torch._dynamo")  # seconds each, but one


def test_a_run_begins_without_what_only_its_end_needs():
    modules = "stepsight.training.fit, stepsight.training.loop, stepsight.training.dense.objective"
    code = f"import sys, {modules}; print([name for name in {SLOW} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_flow_is_painted_without_torchvision():
    code = (
        "import sys, torch; from stepsight.colours import colour_flow;"
        "colour_flow(torch.randn(1, 2, 4, 4)); print('torchvision' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "False", run.stdout + run.stderr
