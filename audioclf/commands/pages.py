"""`audioclf explore` and `audioclf app`: pages to listen on."""

from ..config import Device, Precision, TrainConfig
from .options import Checkpoint, Data, DataOptions, HowToRead


def explore(
    data: Data,
    port: int | None = None,
    host: str = "127.0.0.1",
    open_browser: bool = False,
    max_seconds: float = TrainConfig.max_seconds,
    seed: int = 0,
    cache_dir: str | None = None,
    reading: HowToRead = DataOptions(),
) -> int:
    """Listen to a data set in the browser, before and after what is done to a sound for the model (extra app).

    Args:
        port: Port of the page; the first free one from 7860 on when not given.
        host: Where to listen; 127.0.0.1 is this machine only.
        open_browser: Open a browser.
        max_seconds: What training will hear of a clip.
        seed: Of the random choice.
        cache_dir: Folder for fetched archives and the demo.
        reading: How to read the data set.
    """
    splits = reading.load(data, cache_dir)
    from ..explorer import build_explorer
    from ..serving import serve

    serve(build_explorer(splits, max_seconds, seed), host=host, port=port, open_browser=open_browser)
    return 0


def app(
    checkpoint: Checkpoint,
    port: int | None = None,
    host: str = "127.0.0.1",
    open_browser: bool = False,
    precision: Precision = "fp32",
    device: Device = "auto",
) -> int:
    """Classify uploads and recordings in the browser (extra app).

    Args:
        port: Port of the page; the first free one from 7860 on when not given.
        host: Where to listen; 127.0.0.1 is this machine only.
        open_browser: Open a browser.
        precision: Arithmetic of the forward pass.
        device: Where to compute.
    """
    from ..serving import import_gradio

    import_gradio()  # said before the checkpoint is read
    from ..app import build_app
    from ..inference import load
    from ..serving import serve

    classifier = load(checkpoint, precision=precision, device=device)
    serve(build_app(classifier, f"audioclf: {checkpoint}"), host=host, port=port, open_browser=open_browser)
    return 0
