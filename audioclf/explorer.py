"""`explore`: listening to a data set, before and after what is done to a sound for the model. Shapes: T samples."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from transformers import Wav2Vec2FeatureExtractor

from .clips import decode_example
from .datasets.base import AudioSplits, Example, refuse_stream
from .errors import AudioError
from .levels import Original, original
from .pictures import spectrogram_image, waveform_image
from .serving import import_gradio, playable

NUM_SHOWN = 4
"""Clips drawn at random, as in the course."""
MAX_LISTED = 500
"""Clips in the list to choose from; search finds the others."""
ALL = "all"
MODEL_RATE = 16_000
ROWS = ("sampling rate, Hz", "samples", "seconds", "mean", "variance", "least", "largest")


def build_explorer(splits: AudioSplits, max_seconds: float = 30.0, seed: int = 0) -> Any:
    """A page to listen to a data set by part and class, and to see what becomes of a sound on its way to the model.

    Args:
        splits: The data.
        max_seconds: What training hears of a clip.
        seed: Of the random choice.

    Returns:
        A `gradio.Blocks`; `launch()` shows it, in a notebook too.

    Raises:
        ConfigError: when Gradio is not installed.
    """
    gradio = import_gradio()
    refuse_stream(splits, "explore")
    shelf = _Shelf(splits, max_seconds, np.random.default_rng(seed))
    with gradio.Blocks(title=f"audioclf: {splits.name}", analytics_enabled=False) as page:
        gradio.Textbox(_summary(splits), label=splits.name, interactive=False, container=True)
        with gradio.Row():
            part = gradio.Dropdown(list(splits.parts), value=next(iter(splits.parts)), label="part")
            label = gradio.Dropdown([ALL, *splits.labels], value=ALL, label="class")
            text = gradio.Textbox(label="name contains", placeholder="any")
            again = gradio.Button("Four at random", variant="primary", elem_id="random")
        cells = []
        with gradio.Row():
            for number in range(NUM_SHOWN):
                with gradio.Column(min_width=220):
                    title = gradio.Textbox(label=f"sound {number + 1}", interactive=False, lines=2)
                    cells += [
                        gradio.Audio(label="as it is", interactive=False, buttons=[]),
                        _image(gradio, "spectrogram"),
                        title,
                    ]
        with gradio.Row():
            clip = gradio.Dropdown([], label="one clip", scale=4, elem_id="clip")
            count = gradio.Textbox(label="that match", interactive=False, scale=1)
            back = gradio.Button("Previous", scale=1)
            on = gradio.Button("Next", scale=1)
        about = gradio.Textbox(label="about it", interactive=False, lines=2, elem_id="about")
        with gradio.Row():
            with gradio.Column(min_width=280):
                before = gradio.Audio(
                    label="the file, mixed to one channel", interactive=False, buttons=[], elem_id="before"
                )
                wave = _image(gradio, "waveform")
            with gradio.Column(min_width=280):
                after = gradio.Audio(label="what the model hears: 16 kHz, normalised", interactive=False, buttons=[])
                spectrum = _image(gradio, "spectrogram")
        table = gradio.Dataframe(
            headers=["", "file", "at 16 kHz", "normalised"], label="numbers", interactive=False, elem_id="numbers"
        )
        chosen, shown = [part, label, text], [*cells, clip, count]
        for change in (again.click, part.change, label.change, text.submit, page.load):
            change(shelf.draw, chosen, shown)
        clip.change(shelf.look, [part, clip], [before, wave, after, spectrum, table, about])
        back.click(partial(shelf.step, by=-1), [*chosen, clip], clip)
        on.click(partial(shelf.step, by=1), [*chosen, clip], clip)
    return page


@dataclass(frozen=True)
class _Shelf:
    """What the page's buttons do: a part, a class and a text choose among the clips."""

    splits: AudioSplits
    max_seconds: float
    rng: np.random.Generator

    def matching(self, part: str, label: str, text: str) -> list[tuple[str, int]]:
        """Names and numbers of the clips."""
        return [
            (clip.name, number)
            for number, clip in enumerate(self.splits.parts[part])
            if (label == ALL or label in clip.labels) and text.lower() in clip.name.lower()
        ]

    def draw(self, part: str, label: str, text: str) -> list[Any]:
        """Sound, picture and title of some at random, the list to choose from, and how many match."""
        found = self.matching(part, label, text)
        chosen = self.rng.permutation(len(found))[:NUM_SHOWN]
        shown = [_heard(self.splits.parts[part][found[row][1]]) for row in chosen]
        cells = [cell for of_clip in [*shown, *[(None, None, "")] * (NUM_SHOWN - len(shown))] for cell in of_clip]
        listed = found[:MAX_LISTED]
        count = f"{len(found):,} clips" + (f", the first {MAX_LISTED} listed" if len(found) > MAX_LISTED else "")
        first = listed[int(chosen[0])][1] if len(chosen) and chosen[0] < len(listed) else None
        return [*cells, import_gradio().Dropdown(choices=listed, value=first), count]

    def step(self, part: str, label: str, text: str, number: int | None, by: int) -> int | None:
        """The number of the clip that comes so many after that one."""
        numbers = [own for _, own in self.matching(part, label, text)]
        if not numbers:
            return None
        place = numbers.index(number) + by if number in numbers else 0
        return numbers[place % len(numbers)]

    def look(self, part: str, number: int | None) -> list[Any]:
        """All that is shown of one clip."""
        return [None] * 5 + [""] if number is None else _details(self.splits.parts[part][number], self.max_seconds)


def _summary(splits: AudioSplits) -> str:
    parts = ", ".join(f"{len(clips):,} clips in {part}" for part, clips in splits.parts.items())
    return f"{len(splits.labels)} classes; {parts}"


def _image(gradio: Any, label: str) -> Any:
    return gradio.Image(label=label, interactive=False, format="png", height=150, buttons=[])


def _heard(clip: Example) -> tuple[Any, Any, str]:
    """Player, picture and title of a clip; of one that cannot be read why."""
    try:
        waveform, rate, _ = _before(clip)
    except AudioError as error:
        return None, None, str(error)
    return playable(waveform, rate), _large(spectrogram_image(waveform, rate)), f"{', '.join(clip.labels)}\n{clip.name}"


def _before(clip: Example) -> tuple[np.ndarray, int, int | None]:
    """The clip (T,) at the rate of its file, that rate, and its channels; at the model's where only FFmpeg knows."""
    try:
        told = original(clip.source(), clip.start, clip.end, look_for_clipping=False)
    except (AudioError, OSError):  # decoding will say why
        told = Original()
    rate = told.sampling_rate or MODEL_RATE
    return decode_example(clip, rate), rate, told.channels


def _details(clip: Example, max_seconds: float) -> list[Any]:
    try:
        before, rate, channels = _before(clip)
        resampled = decode_example(clip, MODEL_RATE, max_seconds)
    except AudioError as error:
        return [None, None, None, None, None, str(error)]
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    normalised = extractor(resampled, sampling_rate=MODEL_RATE, return_tensors="np")["input_values"][0]
    columns = [_numbers(before, rate), _numbers(resampled, MODEL_RATE), _numbers(normalised, MODEL_RATE)]
    facts = [f"label: {', '.join(clip.labels) or 'none'}", f"channels: {channels or 'unknown'}"]
    facts += [f"{name}: {value}" for name, value in (("group", clip.group), ("fold", clip.fold)) if value is not None]
    return [
        playable(before, rate),
        waveform_image(before),
        playable(normalised / max(1.0, float(np.abs(normalised).max())), MODEL_RATE),
        _large(spectrogram_image(resampled, MODEL_RATE)),
        [list(row) for row in zip(ROWS, *columns, strict=True)],
        f"{clip.name}\n{'; '.join(facts)}",
    ]


def _numbers(waveform: np.ndarray, rate: int) -> list[str]:
    values = waveform.astype(np.float64)
    moments = (values.mean(), values.var(), values.min(), values.max())
    return [str(rate), str(len(values)), f"{len(values) / rate:.3f}", *(f"{value:.6g}" for value in moments)]


def _large(image: np.ndarray) -> np.ndarray:
    """The picture some 600 wide and three times as high, as the page does not enlarge it."""
    return image.repeat(3, axis=0).repeat(max(1, 600 // image.shape[1]), axis=1)
