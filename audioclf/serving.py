"""Pages of Gradio on this machine: without it a sentence, without the network all the same."""

import os
import threading
from typing import Any

from .errors import ConfigError


def import_gradio() -> Any:
    """Gradio, which asks no host for anything.

    Raises:
        ConfigError: when it is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise ConfigError("The page needs Gradio: pip install 'audioclf[app]'.") from error
    return gradio


def serve(blocks: Any, *, host: str, port: int | None, open_browser: bool) -> None:
    """Shows a page until Ctrl-C.

    Args:
        blocks: The page.
        host: Name or address to listen at; 127.0.0.1 is this machine only.
        port: Its port; the first free one from 7860 on when None.
        open_browser: Whether to open a browser.

    Raises:
        ConfigError: when the port is taken, or the host is not this machine's.
    """
    gradio = import_gradio()
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            theme=theme,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
        )
    except OSError as error:
        raise ConfigError(f"host={host!r} and port={port} cannot be used ({error}): give another port.") from error
    print(f"{address} - Ctrl-C ends it", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        blocks.close(verbose=False)
