"""Every Python block of the guide and every example of a public docstring runs, on small data laid out as they say."""

import dataclasses
import doctest
import hashlib
import importlib
import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import datasets
import gradio
import numpy as np
import pytest
from conftest import TONES, write_tone

import audioclf
from audioclf import Example
from audioclf.datasets.load import CORPORA
from audioclf.datasets.making import make_splits

ROOT = Path(__file__).parent.parent
ELSEWHERE = {"augmentation.md", "extending.md", "inspect.md", "scaling.md", "scores.md"}
"""Pages with data of their own: test_docs."""
MANY_RUNS = ("docs/evaluation.md", "docs/recipes.md")
SMALL = ("model", "num_epochs", "batch_size", "device", "precision", "num_workers", "progress", "cache_dir")
"""Options of the guide that a test cannot afford."""
GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")


def blocks(page: Path) -> list[str]:
    return re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


PAGES = {
    str(page.relative_to(ROOT)): blocks(page)
    for page in sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("README*.md")])
    if page.name not in ELSEWHERE and "generated" not in page.parts and blocks(page)
}


@pytest.fixture(scope="module")
def world(tones, quick, tmp_path_factory) -> Path:
    """clips/, clips.csv, song.wav, street.wav, recordings/, runs/first; and sounds for the corpora."""
    folder, rng = tmp_path_factory.mktemp("guide") / "world", np.random.default_rng(0)
    shutil.copytree(tones, folder / "clips")
    rows = []
    for number, path in enumerate(sorted((folder / "clips").rglob("*.wav"))):
        part, label = path.relative_to(folder / "clips").parts[:2]
        rows.append(f"{path.relative_to(folder)},{label},{part},{part}-{number % 4}")
    (folder / "clips.csv").write_text("\n".join(["path,label,split,speaker", *rows]))
    write_tone(folder / "song.wav", 3000, 3.0, rng)
    write_tone(folder / "street.wav", 300, 8.0, rng)
    for number, frequency in enumerate(TONES.values()):
        for place in ("", "streets", "rooms"):
            write_tone(folder / "recordings" / place / f"{number}.wav", frequency, 1.0, rng)
    for number in range(60):
        write_tone(folder / "sounds" / f"{number:02}.wav", 200 + 50 * number, 0.3, rng)
    audioclf.train(folder / "clips", output_dir=folder / "runs" / "first", **quick)
    return folder


def stand_in(name: str, folder: Path, fold: str | None) -> audioclf.AudioSplits:
    """Clips in the place of a corpus: the ten genres, each with three speakers in three folds."""
    clips = []
    for number, path in enumerate(sorted((folder / "sounds").glob("*.wav"))):
        genre, speaker = GENRES[number % 10], number // 10 % 3 + 1
        label = tuple({genre, *GENRES[: number % 2]}) if name == "fsd50k" else genre
        by_fold = "test" if str(speaker) == str(fold) else "train"
        split = ("train", "valid", "test")[speaker - 1] if fold is None else by_fold
        clips.append(Example(str(path), label, split, group=str(speaker), fold=str(speaker)))
    return make_splits(clips, name=name)


@pytest.fixture
def guide(world, quick, tmp_path, monkeypatch) -> Path:
    """The world, entered; in it training is small and nothing is fetched or sent."""
    here = tmp_path / "world"
    shutil.copytree(world, here)
    monkeypatch.chdir(here)
    small = {**{name: quick[name] for name in SMALL if name in quick}, "num_epochs": 1, "num_workers": 0}
    numbers = iter(range(1000))

    def lightened(call: Callable) -> Callable:
        def light(*data, config=None, **options):
            data = [audioclf.load_dataset(part) if isinstance(part, str) else part for part in data]
            if config is not None:
                options = {**{f.name: getattr(config, f.name) for f in dataclasses.fields(config)}, **options}
            if options.get("steps_per_epoch"):
                options["steps_per_epoch"] = 2
            if str(options.get("output_dir", "audioclf_output")) == "audioclf_output":
                options["output_dir"] = f"output {next(numbers)}"
            return call(*data, **{**options, **small})

        return light

    for name in ("train", "cross_validate", "compare"):
        monkeypatch.setattr(audioclf, name, lightened(getattr(audioclf, name)))
    load = audioclf.load_dataset

    def near(data, **options):
        if str(data) in CORPORA and str(data) != "demo":
            signature = inspect.signature(CORPORA[str(data)].load).parameters
            assert set(options) <= {*signature, "cache_dir"}, f"{data} takes no {set(options) - set(signature)}"
            return stand_in(str(data), here, options.get("fold"))
        if re.fullmatch(r"user/[\w-]+", str(data)):
            return load("clips")
        return load(data, **{**options, "cache_dir": quick["cache_dir"]})

    monkeypatch.setattr(audioclf, "load_dataset", near)
    monkeypatch.setattr(gradio.Blocks, "launch", lambda page, **options: None)
    monkeypatch.setattr(datasets.DatasetDict, "push_to_hub", lambda parts, repository: None)
    monkeypatch.setattr(audioclf, "push", lambda folder, repository, **options: f"https://huggingface.co/{repository}")
    for name in ("inspect", "evaluate", "report"):
        call = getattr(audioclf, name)
        monkeypatch.setattr(
            audioclf, name, lambda *a, call=call, **k: call(*a, **{**k, "cache_dir": quick["cache_dir"]})
        )
    return here


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] * (page in MANY_RUNS)) for page in PAGES])
def test_page(page, guide):
    names: dict = {}
    for block in PAGES[page]:
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs" / "ko").glob("*.md")))
def test_korean_is_as_new_as_english(page):
    """Its first line names the English page, and what that was when the Korean one was last brought up to it."""
    first = (ROOT / "docs" / "ko" / page).read_text(encoding="utf-8").splitlines()[0]
    english, then = re.fullmatch(r"% of: (\S+) sha256:([0-9a-f]{16})", first).groups()
    now = hashlib.sha256((ROOT / english).read_bytes()).hexdigest()[:16]
    assert then == now, f"{english} has changed: bring docs/ko/{page} up to it, and its first line to sha256:{now}"


def docstrings() -> dict[str, list[str]]:
    """The sources behind `>>>` of each public name and its public methods; those of one docstring share their names."""
    found = {}
    for name in audioclf.__all__:
        value = getattr(audioclf, name)
        members = {name: value}
        if inspect.isclass(value):
            members |= {f"{name}.{key}": member for key, member in vars(value).items() if callable(member)}
        for key, member in members.items():
            sources = [example.source for example in doctest.DocTestParser().get_examples(inspect.getdoc(member) or "")]
            if sources:
                found[key] = sources
    return found


EXAMPLES = docstrings()


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring(name, guide):
    names = {
        "audioclf": audioclf,
        "np": np,
        "classifier": audioclf.load("runs/first"),
        "microphone": [np.zeros(44_100)],
        "paths": ["song.wav", "street.wav"],
        "data": audioclf.load_dataset("clips"),
    }
    names |= {key: getattr(audioclf, key) for key in audioclf.__all__}
    for source in EXAMPLES[name]:
        exec(compile(source, name, "exec"), names)


@pytest.mark.parametrize("module", ["accumulate", "audio", "pieces", "timeline"])
def test_what_examples_give(module):
    """Those of functions, whose results they show."""
    found = doctest.testmod(importlib.import_module(f"audioclf.{module}"))
    assert found.attempted
    assert not found.failed
