"""Serves the page, to this machine unless told otherwise, without asking anybody else for anything:
no telemetry, no look for newer versions, no letters or scripts from elsewhere.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.pipeline.dense import DensePipeline

LARGEST = "2gb"  # file that may be dropped
# What the browser may load: what this program serves, and what the page makes of dropped files.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    "connect-src 'self' data: blob:; frame-ancestors 'self'"
)


@contextmanager
def served(pipeline: DensePipeline, about: str, host: str, port: int) -> Iterator[str]:
    """The address of the demo of a model, while the block lasts; then its files go. port 0: any
    free one. about: what the model is, a line.

    Raises UserError without Gradio, and for a host or port that cannot be had.
    """
    port = _free(host, port)
    with tempfile.TemporaryDirectory(prefix="stepsight-demo-") as folder:
        gradio = _gradio(folder)
        from stepsight.demo.answering import Answerer
        from stepsight.demo.page import CSS, build_page
        from stepsight.demo.worlds import DemoWorlds

        worlds = DemoWorlds.of(pipeline, Path(folder))
        answerer = Answerer(pipeline, Path(folder), worlds.scenes.classes if worlds else ())
        page = build_page(answerer, worlds, about)
        page.queue(api_open=False)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                allowed_paths=[folder],
                max_file_size=LARGEST,
                footer_links=[],
                theme=_theme(gradio),
                css_paths=CSS,
                app_kwargs={"middleware": _middleware()},
            )
            yield f"http://{host}:{port}"
        finally:
            page.close(verbose=False)


def _gradio(folder: str) -> Any:
    """Gradio, told where dropped files go and to keep to itself, which it reads as it is imported.
    Raises UserError where it is not installed."""
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            "the demo needs Gradio: `uv sync --extra demo`, or `pip install 'stepsight[demo]'`."
        ) from error
    return gradio


def _theme(gradio: Any) -> Any:
    """With letters that every system has, and words that can be read."""
    sans, mono = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    theme = gradio.themes.Base(primary_hue="blue", neutral_hue="gray", font=sans, font_mono=mono)
    soft = ("body_text_color_subdued", "block_info_text_color", "input_placeholder_color")
    colours = {name: "*neutral_600" for name in soft}
    colours["color_accent"] = "*primary_600"
    return theme.set(**colours, **{f"{name}_dark": "*neutral_300" for name in soft})


def _middleware() -> list[Any]:
    from starlette.middleware import Middleware

    class Policy:
        """Adds the policy to every answer."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def with_policy(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [
                        *message["headers"],
                        (b"content-security-policy", POLICY.encode()),
                    ]
                await send(message)

            await self.app(scope, receive, with_policy)

    return [Middleware(Policy)]


def _free(host: str, port: int) -> int:
    """The port, or any free one for 0. Raises UserError where it cannot be listened on."""
    try:
        with socket.create_server((host, port)) as listening:
            return listening.getsockname()[1]
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {host} --port {port}: cannot be served there ({reason}). "
            "Choose another --port; 0 takes any that is free."
        ) from error
