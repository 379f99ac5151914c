"""Pages of Gradio on this machine: without it a sentence, without the network all the same."""

import functools
import hashlib
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

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


def playable(waveform: np.ndarray, rate: int) -> str:
    """A file for a player of a waveform (T,), there until the process ends.

    Of an array Gradio makes a file by its content too, but writes it anew each time, also while a player reads it.
    """
    path = Path(_sounds().name) / f"{hashlib.sha256(waveform.tobytes()).hexdigest()[:24]}-{rate}.wav"
    if not path.exists():
        handle, partial = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            soundfile.write(file, waveform, rate, format="WAV", subtype="PCM_16")
        os.replace(partial, path)
    return str(path)


@functools.cache
def _sounds() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="audioclf-")


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
