"""The page of whatever a folder holds, written or served."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from stepsight.cli.overview.report import Args, run
from stepsight.errors import UserError
from stepsight.report.serving import HOST, PageServer, write
from tests.support.pages.run_folders import write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tiny")


def test_every_folder_has_its_page(folder, capsys):
    assert run(Args(folder)) == 0
    assert capsys.readouterr().out == f"written to {folder / 'report.html'}\n"
    assert write(folder / "eval").name == "evaluation.html"
    assert write(folder / "sweep").name == "sweep.html"
    assert not list(folder.rglob("*.staged"))


def test_a_folder_of_nothing_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        write(tmp_path)


def test_a_served_page_is_that_of_the_files_as_they_are(folder):
    with PageServer(folder, 0) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with urlopen(server.address) as answer:
                first = answer.read().decode()
            page = folder / "report.html"
            assert server.server_address[0] == HOST and first == page.read_text("utf-8")
            (folder / "command.txt").write_text("train.py --lr 0.5\n")
            later = page.stat().st_mtime + 1
            os.utime(folder / "command.txt", (later, later))
            with urlopen(server.address) as answer:
                assert "uv run train.py --lr 0.5" in answer.read().decode()
            (folder / "sweep/fit.json").write_text("[]")
            os.utime(folder / "sweep/fit.json", (later + 9, later + 9))
            for path, status in ("", 500), ("config.yaml", 404):
                with pytest.raises(HTTPError) as refused:
                    urlopen(server.address + path)
                assert refused.value.code == status
                refused.value.close()
        finally:
            server.shutdown()
            thread.join()


def test_a_port_that_is_taken_is_said(folder):
    with PageServer(folder / "eval", 0) as server:
        with pytest.raises(UserError, match=f"--serve {server.server_port}"):
            PageServer(folder / "eval", server.server_port)
