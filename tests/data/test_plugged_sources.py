"""Sources of other packages, found by entry points: a package made for the test, in processes of
its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SETTINGS = """
from dataclasses import dataclass
from typing import ClassVar
from stepsight.data.config import SourceSettings

@dataclass(frozen=True)
class FogSettings(SourceSettings):
    name: ClassVar[str] = "fog"
    implementation: ClassVar[str] = "fogging.source:Fog"
    size: tuple[int, int] = (8, 8)
    thickness: float = 0.5  # share of the light that is lost
"""
SOURCE = """
import torch
from stepsight.data.fields import Field, register
from stepsight.types import Sample

register(Field("fog", "map"))

class Fog:
    classes, categories, quantities = (), (), frozenset({"fog"})

    def __init__(self, settings, split, quantities=None):
        self.name, self.size, self.settings = settings.name, settings.size, settings

    def __len__(self):
        return 4

    def __getitem__(self, index):
        fog = torch.full((1, *self.size), self.settings.thickness)
        image = torch.zeros(3, *self.size, dtype=torch.uint8)
        return Sample(image, str(index), self.name, extra={"fog": fog})

    def samples(self, indices):
        return [self[index] for index in indices]
"""


def install(
    folder: Path, point: str = "fog = fogging.settings:FogSettings", **sources: str
) -> Path:
    """Put `fogging` with an entry point into a folder."""
    package, info = folder / "fogging", folder / "fogging-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    sources = {"__init__": "", "settings": SETTINGS, "source": SOURCE} | sources
    for name, source in sources.items():
        (package / f"{name}.py").write_text(source)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fogging\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[stepsight.data]\n{point}\n")
    return folder


def run(path: Path, code: str) -> str:
    script = f"import sys; sys.path.insert(0, {str(path)!r})\n{textwrap.dedent(code)}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_a_source_joins_the_table_and_its_quantity_the_fields(tmp_path):
    output = run(
        install(tmp_path),
        f"""
        from stepsight.config import from_dict
        assert "torch" not in sys.modules
        data = {{"fog": {{"thickness": 0.25}}}}
        config = from_dict({{"tasks": {{"depth": {{}}}}, "data": data}})
        assert config.data["fog"].thickness == 0.25 and "torch" not in sys.modules
        import stepsight.data
        from stepsight.data.config import TABLE
        from stepsight.data.fields import quantities
        from stepsight.data.sharded.writing import write_shards
        assert list(TABLE)[-1] == "fog" and "fog" in quantities()
        source = stepsight.data.open("fog", thickness=0.75)
        assert source[1].fog.unique().tolist() == [0.75]
        write_shards(source, {str(tmp_path / "shards")!r}, per_shard=3)
        """,
    )
    assert output == ""
    output = run(
        tmp_path,
        f"""
        import stepsight.data
        opened = stepsight.data.open("shards", {str(tmp_path / "shards")!r})
        print(opened.name, len(opened), opened.quantities, opened[3].fog.unique().tolist())
        """,
    )
    assert output == "fog 4 frozenset({'fog'}) [0.75]\n"


BROKEN = {
    "fogging: its entry point stepsight.data fog": {"settings": "import nowhere"},
    "is no SourceSettings with the name 'fog'": {"point": "fog = fogging.source:Fog"},
    "no SourceSettings with the name 'mist'": {"point": "mist = fogging.settings:FogSettings"},
    "SourceSettings with the name 'scen": {"point": "scenes = fogging.settings:FogSettings"},
    "fogging.source:Fog cannot be imported (ModuleNotFoundErr": {"source": "import nowhere"},
}


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[str]:
    """What a process says with each of the broken packages: copies of one that has torch."""
    root = tmp_path_factory.mktemp("broken")
    for number, changes in enumerate(BROKEN.values()):
        install(root / str(number), **changes)
    output = run(
        root,
        f"""
        import os, torch
        for number in range({len(BROKEN)}):
            print(end="=====", flush=True)
            if os.fork():
                os.wait()
                continue
            sys.path.insert(0, {str(root)!r} + f"/{{number}}")
            import stepsight.data
            from stepsight.data.config import TABLE
            from stepsight.errors import UserError
            assert len(stepsight.data.open("scenes", split="eval", size=(8, 8))) == 512
            try:
                list(TABLE)
                stepsight.data.open("fog")
            except UserError as error:
                print(error, flush=True)
            break
        """,
    )
    return output.split("=====")[1:]


@pytest.mark.parametrize(("number", "message"), [*enumerate(BROKEN)])
def test_a_broken_package_is_named_and_keeps_nobody_from_what_is_built_in(number, message, told):
    assert message in told[number] and "Traceback" not in "".join(told)
