"""The notebooks of docs/notebooks: run, with what comes out kept, and as pages of the site.

    uv run --frozen python scripts/notebook_pages.py      # run all of them, and store what came out

A hook of mkdocs (mkdocs.yml), too: each notebook becomes a page of its name.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
KEPT, WIDE = 30, 150  # lines of what a cell prints, and characters of each


def executed(path: Path) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, run in this process and an empty folder.

    A name that begins with `docs/` is read from the checkout."""
    notebook, names = json.loads(path.read_text(encoding="utf-8")), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.symlink(FOLDER.parent, "docs")
        for number, cell in enumerate(_code(notebook), start=1):
            cell |= {"execution_count": number, "outputs": list(_outputs(cell, names, path.name))}
    return notebook


def _code(notebook: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (cell for cell in notebook["cells"] if cell["cell_type"] == "code")


def _outputs(cell: dict[str, Any], names: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """What a cell prints, and the figures that it leaves open."""
    import matplotlib.pyplot as plt

    tree = ast.parse("".join(cell["source"]), name)
    with redirect_stdout(io.StringIO()) as said:
        exec(compile(tree, name, "exec"), names)
    lines = said.getvalue().replace(f"{Path.cwd()}/", "").splitlines()
    lines = lines if len(lines) <= KEPT else [*lines[: KEPT - 5], "...", *lines[-4:]]
    if lines:
        short = (line if len(line) <= WIDE else f"{line[:WIDE]} ..." for line in lines)
        text = [line.rstrip() + "\n" for line in short]
        yield {"output_type": "stream", "name": "stdout", "text": text}
    for number in plt.get_fignums():
        drawn = io.BytesIO()
        plt.figure(number).savefig(drawn, format="png", dpi=80, metadata={"Software": None})
        plt.close(number)
        data = {"image/png": base64.b64encode(drawn.getvalue()).decode()}
        yield {"output_type": "display_data", "metadata": {}, "data": data}


def page(notebook: dict[str, Any]) -> str:
    """The notebook in Markdown, with its pictures inside."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text'])}```")
            elif "image/png" in output["data"]:
                parts.append(f"![](data:image/png;base64,{output['data']['image/png']})")
    return "\n\n".join(parts) + "\n"


def on_files(files: Any, config: Any) -> Any:
    """mkdocs: a page for every notebook, beside the notebook itself."""
    from mkdocs.structure.files import File

    for path in sorted(FOLDER.glob("*.ipynb")):
        text = page(json.loads(path.read_text(encoding="utf-8")))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """mkdocs: links to notebooks, as they are in the repository, lead to their pages."""
    return markdown.replace(".ipynb)", ".md)")


def main() -> int:
    for path in sorted(FOLDER.glob("*.ipynb")):
        text = json.dumps(executed(path), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        print(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
