"""The architecture, held by reading the syntax trees of the package: who may import whom, what
stays light, and which calls nobody makes. Imports inside functions count, and so do those under
`if TYPE_CHECKING:` but for what is loaded.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "stepsight"

# A room (first name under stepsight) may import itself and the rooms of the rows above its own.
# Rooms of one row do not know each other. "*/config" are the settings of the rooms.
ROWS = (
    ("types", "rowwise", "errors", "seeding", "plugins", "signals", "averages"),
    ("*/config",),
    ("measures", "noise_levels", "legends"),
    ("config",),
    (
        "schedule",
        "metrics",
        "ensemble",
        "matching",
        "scaling",
        "colours",
        "distributed",
        "execution",
    ),
    ("tasks", "data", "models", "checkpoint", "results"),
    ("diffusion", "coding"),
    ("report",),
    ("travelling",),
    ("pipeline", "conversion"),
    ("evaluation",),
    ("testtime", "predicting", "exporting"),
    ("training", "demo"),
    ("doctor", "study"),
    ("bench",),
    ("cli",),
    ("stepsight",),  # the package itself: its lazy exports
)
ROW = {room: number for number, row in enumerate(ROWS) for room in row}
FOR_ALL = {"errors", "seeding", "plugins", "rowwise"}

LOADS_TORCH = {"torch", "torchvision", "diffusers", "accelerate", "timm"}
LIGHT = {"*/config", "errors", "plugins"}
LAZY_IN_CONFIG = {"omegaconf", "tyro", "yaml"}
TYPE_CHECKING = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
PICKLES = {"pickle", "dill", "cloudpickle", "joblib"}

Package = dict[str, ast.Module]  # dotted module name -> syntax tree


@dataclass(frozen=True)
class Import:
    target: str  # dotted; a module of the package, or a foreign name
    line: int
    lazy: bool  # inside a function
    typed: bool  # for type checkers alone


def read_package(root: Path) -> Package:
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imports(name: str, package: Package) -> list[Import]:
    return list(_imports(package[name], package, lazy=False, typed=False))


def loaded(name: str, package: Package) -> list[Import]:
    return [found for found in imports(name, package) if not found.typed]


def _imports(node: ast.AST, package: Package, lazy: bool, typed: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno, lazy, typed) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0 and node.module, f"line {node.lineno}: imports are absolute here"
        for alias in node.names:
            member = f"{node.module}.{alias.name}"
            yield Import(member if member in package else node.module, node.lineno, lazy, typed)
    lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    guarded = isinstance(node, ast.If) and ast.unparse(node.test) in TYPE_CHECKING
    for child in ast.iter_child_nodes(node):
        own = guarded and child not in node.orelse  # type: ignore[attr-defined]
        yield from _imports(child, package, lazy, typed or own)


def room(module: str) -> str:
    parts = module.split(".")
    if len(parts) > 2 and parts[-1] == "config":
        return "*/config"
    return parts[1] if len(parts) > 1 else parts[0]


def out_of_order(package: Package) -> list[str]:
    homeless = [f"{name}: give its room a row in ROWS" for name in package if room(name) not in ROW]
    return homeless or [
        f"{name}:{found.line} ({room(name)}) imports {found.target} ({room(found.target)})"
        for name in package
        for found in imports(name, package)
        if found.target in package and not may_import(room(name), room(found.target))
    ]


def may_import(here: str, there: str) -> bool:
    return here == there or there in FOR_ALL or ROW[there] < ROW[here]


def cycle(package: Package) -> list[str]:
    graph = {
        name: {found.target for found in imports(name, package)} & package.keys()
        for name in package
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def reached(name: str, package: Package) -> set[str]:
    """All that importing and using a module may load, the packages it lies in included; of those
    only what they import at once, since their exports are lazy."""
    packages = {other.rpartition(".")[0] for other in package}
    seen, todo = set(), [name]
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        todo += [module.rpartition(".")[0]] if "." in module else []
        if module in package:
            found = loaded(module, package)
            todo += [i.target for i in found if module not in packages or not i.lazy]
    return seen


def heavy_config(package: Package) -> list[str]:
    """Imports of the settings modules beyond the standard library and what is `LIGHT`."""
    faults = []
    for name in package:
        if room(name) not in ("*/config", "config"):
            continue
        for found in loaded(name, package):
            root = found.target.split(".")[0]
            light = root in sys.stdlib_module_names or room(found.target) in LIGHT | {room(name)}
            lazy = found.lazy and room(name) == "config" and root in LAZY_IN_CONFIG
            if not light and not lazy:
                faults.append(f"{name}:{found.line} imports {found.target}")
    return faults


def banned(tree: ast.Module) -> list[str]:
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names}
            source = (getattr(node, "module", None) or "").split(".")[0]
            if names & PICKLES or source in PICKLES:
                faults.append(f"line {node.lineno}: pickle")
            if source in ("torch", "yaml") and "load" in names:
                faults.append(f"line {node.lineno}: a bare load")
        elif isinstance(node, ast.Call):
            faults += [f"line {node.lineno}: {fault}" for fault in _banned_call(node)]
    return faults


def _banned_call(node: ast.Call) -> Iterator[str]:
    function = ast.unparse(node.func)
    true = {
        word.arg or ""
        for word in node.keywords
        if isinstance(word.value, ast.Constant) and word.value.value is True
    }
    if function in ("eval", "exec", "yaml.load"):
        yield f"{function}("
    if function == "torch.load" and "weights_only" not in true:
        yield "torch.load( without weights_only=True"
    yield from (f"{word}=True" for word in sorted(true & {"shell", "allow_pickle"}))


@pytest.fixture(scope="module")
def package() -> Package:
    found = read_package(SOURCE)
    assert {"stepsight", "stepsight.types", "stepsight.metrics.depth"} <= found.keys()
    return found


def test_rooms_import_only_rooms_above(package):
    assert out_of_order(package) == []


def test_no_cycles(package):
    assert cycle(package) == []


def test_settings_need_only_the_standard_library(package):
    assert heavy_config(package) == []


def light_modules(package: Package) -> list[str]:
    return [name for name in package if room(name) in ("scaling", "config", "*/config")]


def test_scaling_and_settings_never_reach_torch(package):
    heavy = {name: reached(name, package) & LOADS_TORCH for name in light_modules(package)}
    assert {name: found for name, found in heavy.items() if found} == {}


def test_importing_them_really_loads_no_torch(package):
    code = f"import sys, {', '.join(light_modules(package))}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "False", run.stderr


def test_banned_calls(package):
    faults = {name: banned(tree) for name, tree in package.items()}
    assert {name: found for name, found in faults.items() if found} == {}


# The rules themselves, on packages made to break them.


def made(**sources: str) -> Package:
    """A package from `room__module="source"`."""
    return {f"stepsight.{k.replace('__', '.')}": ast.parse(v) for k, v in sources.items()}


@pytest.mark.parametrize(
    "source",
    [
        "from stepsight.data.table import x",
        "from stepsight.data import table",
        "import stepsight.data.table",
        "def f():\n    from stepsight.data.table import x",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import stepsight.data.table",
        "if TYPE_CHECKING:\n    from stepsight.data.table import x",
        "if typing.TYPE_CHECKING:\n    from stepsight.data.table import x",
    ],
)
@pytest.mark.parametrize("importer", ["tasks__flow", "metrics__flow", "types", "tasks__config"])
def test_an_import_against_the_order_is_found(importer, source):
    name = f"stepsight.{importer.replace('__', '.')}"
    faults = out_of_order(made(**{importer: source, "data__table": ""}))
    assert len(faults) == 1 and faults[0].startswith(name) and "data.table" in faults[0]


@pytest.mark.parametrize(
    "source",
    [
        "from stepsight.errors import UserError",
        "from stepsight.data.config import TABLE",
        "from stepsight.data import rows",
        "from stepsight.schedule import cosine",
    ],
)
def test_an_import_in_order_passes(source):
    others = ("errors", "data__config", "data__rows", "schedule")
    assert out_of_order(made(data__table=source, **dict.fromkeys(others, ""))) == []


def test_a_module_without_a_room_is_named():
    assert out_of_order(made(attic="")) == ["stepsight.attic: give its room a row in ROWS"]


def test_a_cycle_is_found_even_through_a_function():
    there, back = "import stepsight.data.b", "def f():\n    import stepsight.data.a"
    assert cycle(made(data__a=there, data__b=back)) != []
    assert cycle(made(data__a=there, data__b="")) == []


def test_a_circle_of_types_is_a_circle():
    there = "if TYPE_CHECKING:\n    from stepsight.data.b import x"
    assert cycle(made(data__a=there, data__b="import stepsight.data.a")) != []


def test_what_only_type_checkers_read_loads_nothing():
    package = made(scaling__fit="if TYPE_CHECKING:\n    import torch\nelse:\n    import math")
    assert reached("stepsight.scaling.fit", package) & {"torch", "math"} == {"math"}


def test_torch_is_found_behind_other_modules():
    chain = made(scaling__fit="import stepsight.metrics.x", metrics__x="import torch.nn")
    assert "torch" in reached("stepsight.scaling.fit", chain)
    chain = made(scaling__fit="import stepsight.metrics.x", metrics__x="def f():\n    import torch")
    assert "torch" in reached("stepsight.scaling.fit", chain)


@pytest.mark.parametrize("around", ["stepsight", "stepsight.scaling"])
def test_torch_is_found_in_the_packages_around_a_module_but_not_behind_their_lazy_exports(around):
    lazy = "def __getattr__(name):\n    import torch"
    package = {around: ast.parse(lazy), **made(scaling__fit="")}
    if around == "stepsight":
        package["stepsight.scaling"] = ast.parse("")  # as on disk, where packages are modules too
    assert "torch" not in reached("stepsight.scaling.fit", package)
    package[around] = ast.parse("import torch")
    assert "torch" in reached("stepsight.scaling.fit", package)


def test_a_heavy_settings_module_is_found():
    lazy = "def f():\n    import tyro"
    assert heavy_config(made(config=lazy, data__config="import dataclasses, re")) == []
    assert len(heavy_config(made(config="import tyro"))) == 1
    assert len(heavy_config(made(data__config=lazy))) == 1
    assert len(heavy_config(made(data__config="from stepsight.types import Batch"))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
        "eval(text)",
        "exec(text)",
        "yaml.load(text)",
        "subprocess.run(line, shell=True)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_a_banned_call_is_found(source):
    assert len(banned(ast.parse(source))) == 1


def test_harmless_namesakes_pass():
    source = "net.eval()\nyaml.safe_load(t)\ntorch.load(p, weights_only=True)\nnp.load(p)"
    assert banned(ast.parse(source)) == []
