"""What stands beside the code for others: citation, image, workflow."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == PROJECT["version"] and cited["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()


def test_the_images_have_extras_that_there_are():
    image = read("Dockerfile")
    assert set(re.findall(r"--extra (\w+)", image)) < PROJECT["optional-dependencies"].keys()
    assert {"cpu", "cuda"} <= set(re.findall(r"^FROM \S+ AS (\w+)", image, re.M))
    last = image.rpartition("\nFROM ")[2]
    assert last.startswith("base AS cuda")  # what is built where nobody says which


def test_the_workflow_runs_what_a_change_must_pass():
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    assert any(step.get("run") == "bash .ci/run" for step in jobs["check"]["steps"])
    assert "mkdocs build --strict" in read(".ci/run")


def test_what_stands_beside_a_field_documents_it():
    pytest.importorskip("griffe", reason="belongs to the group docs")
    from scripts.field_comments import beside

    lines = ["    a: int = 3  # how many;", "    # or none", "    b: str = ''", "    c = 1  # noqa"]
    assert [beside(lines, number) for number in (1, 3, 4)] == ["how many; or none", "", ""]


def test_every_page_has_its_place():
    """The build refuses pages without one, too; this says it in milliseconds."""
    named = set(re.findall(r"[\w/-]+\.md", read("mkdocs.yml")))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    notebooks = (ROOT / "docs" / "notebooks").glob("*.ipynb")
    assert named == pages | {f"notebooks/{path.stem}.md" for path in notebooks}
