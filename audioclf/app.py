"""`app`: a checkpoint as a page that classifies what is uploaded or recorded."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import AudioclfError
from .figures import timeline_figure
from .inference import Classifier
from .serving import import_gradio


def build_app(classifier: Classifier, title: str = "audioclf") -> Any:
    """A page that gives the scores of a sound, as `Classifier` does, and on demand what is heard when.

    Args:
        classifier: What `load` returns.
        title: Its heading.

    Returns:
        A `gradio.Blocks`; `launch()` shows it, in a notebook too.

    Raises:
        ConfigError: when Gradio is not installed.
    """
    gradio = import_gradio()
    num_classes = len(classifier.labels)

    def classify(path: str | None, top_k: float, min_score: float) -> Any:
        if path is None:
            return None
        chosen = {"min_score": min_score or None} if classifier.thresholds is None else {}
        with _told(gradio, path):
            found = classifier(path, top_k=int(top_k), **chosen)
        if not found:
            return {"none of the classes": 1 - min_score}
        return {f"{row['label']}{' (detected)' if row.get('detected') else ''}": row["score"] for row in found}

    def over_time(path: str | None, window: float) -> tuple[Any, Any]:
        if path is None:
            return None, None
        with _told(gradio, path):
            timeline = classifier.timeline(path, window_seconds=window or None)
        rows = [[f"{s.start:.2f}", f"{s.end:.2f}", s.label, f"{s.score:.3f}"] for s in timeline.segments]
        return rows, timeline_figure(timeline)

    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Textbox(
            f"{num_classes} classes: {', '.join(classifier.labels[:30])}{', ...' if num_classes > 30 else ''}",
            label=title,
            interactive=False,
            lines=2,
        )
        sound = gradio.Audio(
            sources=["upload", "microphone"], type="filepath", label="sound", buttons=[], elem_id="sound"
        )
        with gradio.Row():
            with gradio.Column(min_width=280):
                scores = gradio.Label(label="scores", elem_id="scores")
                top_k = gradio.Slider(1, num_classes, min(5, num_classes), step=1, label="classes shown")
                min_score = gradio.Slider(
                    0, 1, 0, step=0.01, label="below this score: none of them", visible=classifier.thresholds is None
                )
            with gradio.Column(min_width=280):
                window = gradio.Number(0, label="window in seconds; 0: as long as the clips of training", minimum=0)
                button = gradio.Button("What is heard when", variant="primary", elem_id="when")
                headers = ["start, s", "end, s", "class", "score"]
                segments = gradio.Dataframe(headers=headers, label="segments", interactive=False, elem_id="segments")
                plot = gradio.Plot(label="scores over time", show_label=False)
        for change in (sound.change, top_k.release, min_score.release):
            change(classify, [sound, top_k, min_score], scores)
        button.click(over_time, [sound, window], [segments, plot])
    return page


@contextlib.contextmanager
def _told(gradio: Any, path: str) -> Iterator[None]:
    """Inside, an error of ours is shown on the page, which goes on; the sound is called by its own name there."""
    try:
        yield
    except AudioclfError as error:
        message = str(error).replace(repr(path), repr(Path(path).name))
        raise gradio.Error(message, print_exception=False) from error
