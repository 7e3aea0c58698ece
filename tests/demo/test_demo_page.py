"""The demo's page: served, opened in a browser, asked, and its answers downloaded."""

from __future__ import annotations

import signal
import socket
import sys

import numpy as np
import pytest
import torch

from stepsight.cli.main import main
from stepsight.demo.serving import served
from stepsight.demo.worlds import DemoWorlds
from stepsight.errors import UserError
from stepsight.pipeline.dense import DensePipeline
from stepsight.signals import INTERRUPTED
from tests.support.pages.browser import chromium, faults, opened, too_wide

ABOUT = "tiny: depth and flow."


@pytest.fixture(scope="module")
def pipeline(laboratory):
    return laboratory().pipeline()


@pytest.fixture
def asked_abroad(monkeypatch):
    """The names of other machines that this process asks for."""
    names, resolve = list[str](), socket.getaddrinfo

    def noting(host, *args, **kwargs):
        if host not in (None, "127.0.0.1", "localhost"):
            names.append(str(host))
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", noting)
    return names


@pytest.mark.filterwarnings("ignore")  # Gradio's own: pandas' options, files that it leaves open
def test_upload_predict_download(pipeline, tmp_path, asked_abroad):
    worlds = DemoWorlds.of(pipeline, tmp_path)
    assert worlds
    picture, second, _ = worlds.draw(0)
    with chromium() as browser, served(pipeline, ABOUT, "127.0.0.1", 0) as address:
        with opened(browser, "about:blank", width=390, theme="dark") as (page, complaints):
            loaded: list[str] = []
            page.on("request", lambda request: loaded.append(request.url))
            page.goto(address)
            predict = page.get_by_role("button", name="Predict", exact=True)
            predict.click()
            page.get_by_role("alert").filter(has_text="Drop a picture").wait_for()
            page.locator("input[type=file]").first.set_input_files(picture)
            page.get_by_role("img", name="Picture").wait_for()
            page.get_by_label("flow").check()
            page.get_by_text("Second frame").wait_for()
            predict.click()
            page.get_by_role("alert").filter(has_text="flow also reads").wait_for()
            page.locator("input[type=file]").nth(1).set_input_files(second)
            page.get_by_role("img", name="Second frame").wait_for()
            page.get_by_label("number input for Calls").fill("3")
            predict.click()
            page.get_by_alt_text("flow by 8 calls").wait_for()
            with page.expect_download() as download:
                page.get_by_role("link", name="scene-flow.npy").click()
            values = torch.from_numpy(np.load(download.value.path()))
            shown = page.evaluate(
                "[...document.querySelectorAll('#answer img')].map(i => [i.alt, i.naturalWidth])"
            )
            assert too_wide(page) == [] and faults(page) == [] and complaints == []
    truth = pipeline(picture, "flow", second=second, nfe=3, members=2)
    assert torch.equal(values, truth.values[0])
    assert [alt for alt, width in shown if width != 256] == []
    assert len(shown) == 3 + 5  # picture, flow, spread; by 1, 2, 3, 4, 8 calls
    local = (address, "data:", "blob:")
    assert [url for url in loaded if not url.startswith(local)] == [] == asked_abroad


def test_without_gradio_the_extra_is_named(pipeline, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match="extra demo"), served(pipeline, ABOUT, "127.0.0.1", 0):
        pass


def test_a_port_that_is_taken_is_named(pipeline):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = pytest.raises(UserError, match=f"--port {port}: cannot be served")
        with refused, served(pipeline, ABOUT, "127.0.0.1", port):
            pass


def test_the_command_opens_a_checkpoint_and_says_where(pipeline, monkeypatch, capsys):
    given = {}

    class Served:
        def __init__(self, *asked):
            given["asked"] = asked

        def __enter__(self):
            return "http://127.0.0.1:7860"

        def __exit__(self, *_):
            given["ended"] = True

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(DensePipeline, "from_pretrained", lambda *_, **__: pipeline)
    monkeypatch.setattr("stepsight.demo.serving.served", Served)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(signal, "pause", interrupted)
    assert main(["demo", "--checkpoint", "runs/tiny"]) == INTERRUPTED
    assert given["asked"][2:] == ("127.0.0.1", 7860) and given["ended"]
    said = capsys.readouterr().out
    assert "tiny: depth, flow, amodal, semantic." in said and "photographs are new" in said
    assert "http://127.0.0.1:7860" in said
    assert main(["demo", "--checkpoint", "runs/tiny", "--port", "70000"]) == 2
