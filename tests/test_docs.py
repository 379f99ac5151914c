"""The Python of the guides runs: each page's blocks one after the other, on small data laid out as they say."""

import re
import tarfile
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
from conftest import write_tone

import audioclf
from audioclf import augment, cli

DOCS = Path(__file__).parent.parent / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def small_runs(quick, monkeypatch):
    """The blocks' own options, with a tiny encoder and one epoch."""
    small = {**quick, "num_epochs": 1}
    for name in ("train", "cross_validate"):
        call = partial(getattr(audioclf, name), **small)
        monkeypatch.setattr(audioclf, name, lambda data, call=call, num_epochs=None, **options: call(data, **options))


def test_scores(tones, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(audioclf, "train", partial(audioclf.train, **{**quick, "num_epochs": 3, "seed": 0}))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").symlink_to(tones)
    names = {}
    for block in blocks("scores.md"):
        exec(compile(block, "scores.md", "exec"), names)
    pairs = zip(names["kept"], names["splits"].valid, strict=True)
    given = [entries[0]["label"] == clip.label for entries, clip in pairs if entries]
    assert len(given) == (names["best"] >= names["min_score"]).sum()
    assert given.count(False) <= 0.05 * len(given)
    assert 0 < len(given) < 12  # some are refused, and some are not


def test_inspect(tones, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(audioclf, "inspect", partial(audioclf.inspect, cache_dir=tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").symlink_to(tones)
    for block in blocks("inspect.md"):
        exec(compile(block, "inspect.md", "exec"), {})
    assert "Findings: none." in capsys.readouterr().out


def test_command_line(tmp_path, monkeypatch, capsys):
    """Every command is in the table; the file of options is one."""
    page = (DOCS / "command_line.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([a-z][a-z-]*)[ `]", page, re.MULTILINE) == list(cli.COMMANDS)
    (content,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(content)
    assert cli.main(["train", "--config", "run.yaml", "--num-epochs", "3", "--print-config"]) == 0
    told = capsys.readouterr().out
    for line in (
        "data: clips.csv",
        "group_column: speaker",
        "augment: strong",
        "num_epochs: 3",
        "learning_rate: 0.0001",
    ):
        assert f"{line}\n" in told
    assert "labels:\n- no\n- yes\n" in told


def test_extending(tmp_path, monkeypatch, small_runs):
    rng = np.random.default_rng(0)
    for speaker in ("03", "08", "09", "10"):
        for number, code in enumerate("WLEAFNT"):
            write_tone(tmp_path / f"EmoDB/wav/{speaker}a01{code}a.wav", 300 * (number + 1), 0.3, rng, rate=16_000)
    for speaker in ("anna", "ben", "chris", "dora"):
        write_tone(tmp_path / f"recordings/wake/{speaker}-01.wav", 900, 0.5, rng)
        write_tone(tmp_path / f"recordings/other/{speaker}-01.wav", 300, 0.5, rng)
        write_tone(tmp_path / f"recordings/rooms/{speaker}'s room.wav", 3000, 3.2, rng)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("extending.md"):
        exec(compile(block, "extending.md", "exec"), names)
    emotions = names["emodb"]("EmoDB/wav")
    assert len(emotions.train) == 28
    assert emotions.train[0] == audioclf.Example("EmoDB/wav/03a01Aa.wav", "fear", group="03", fold="03")
    assert len(names["scores"].runs) == 4
    words = names["wake_word"]("recordings")
    assert len(words.train) == 4 + 4 + 4 * 3
    assert names["result"].best_metrics["accuracy"] >= 0


def test_scaling(tmp_path, tones, quick, monkeypatch):
    """The hub's stream is a local one here; the tar shards are real."""
    rows = {part: sorted((tones / part).rglob("*.wav")) for part in ("train", "valid")}
    for name, paths in {"clips": rows["train"], "valid": rows["valid"]}.items():
        labels = ["dog" if path.parent.name == "high" else "cat" for path in paths]
        lines = [f"{path},{label}" for path, label in zip(paths, labels, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label", *lines]))
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as archive:
        for number, path in enumerate(rows["train"]):
            (tmp_path / "cls").write_text(str(int(path.parent.name == "high")))
            archive.add(path, f"{number:03}.wav")
            archive.add(tmp_path / "cls", f"{number:03}.cls")
    parts = audioclf.to_datasets(audioclf.load_dataset(tmp_path / "clips.csv"))
    held_out = audioclf.to_datasets(audioclf.load_dataset(tmp_path / "valid.csv"))["train"]
    streams = {"train": parts["train"].to_iterable_dataset(3), "validation": held_out.to_iterable_dataset()}
    load = datasets.load_dataset

    def local(name, **options):
        return datasets.IterableDatasetDict(streams) if name == "user/corpus" else load(name, **options)

    monkeypatch.setattr(datasets, "load_dataset", local)
    small, steps = {**quick, "num_epochs": 2, "num_workers": 0}, []
    train = audioclf.train

    def few_steps(*data, **options):
        steps.append(options["steps_per_epoch"])
        return train(*data, **{**options, **small, "steps_per_epoch": 3, "output_dir": str(tmp_path / str(len(steps)))})

    monkeypatch.setattr(audioclf, "train", few_steps)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("scaling.md"):
        exec(compile(block, "scaling.md", "exec"), names)
    assert steps == [1000] * 4


def test_augmentation(tmp_path, tones, monkeypatch, small_runs):
    rng = np.random.default_rng(0)
    write_tone(tmp_path / "recordings/streets/a.wav", 200, 2.0, rng)
    write_tone(tmp_path / "recordings/rooms/b.wav", 200, 0.1, rng)
    rows = [f"{path},{path.parent.name}" for path in sorted((tones / "train").rglob("*.wav"))]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *rows]))
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("augmentation.md"):
        exec(compile(block, "augmentation.md", "exec"), names)
    assert names["result"].best_metrics["accuracy"] >= 0


def test_augmentation_has_every_name_with_its_range():
    page = (DOCS / "augmentation.md").read_text(encoding="utf-8")
    table, presets = page.split("## Presets")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", table, re.MULTILINE))
    assert {*augment.TRANSFORMS, "mixup"} <= set(rows)
    for name, values in {
        "gain": augment.GAIN_DB,
        "shift": augment.SHIFT_SECONDS,
        "speed": augment.SPEED_FACTOR,
        "noise": augment.NOISE_SNR_DB,
        "coloured_noise": augment.NOISE_DB_PER_OCTAVE,
        "reverb": (*augment.REVERB_RT60_SECONDS, *augment.REVERB_DIRECT_DB),
        "lowpass": augment.LOWPASS_HZ,
        "highpass": augment.HIGHPASS_HZ,
        "phone": augment.PHONE_HZ,
        "codec": (*augment.CODEC_HZ, *augment.CODEC_BITS),
        "frequency_mask": (*augment.STOP_OCTAVES, augment.STOP_FROM_HZ, augment.STOP_TO_HZ),
    }.items():
        for value in values:
            assert re.search(rf"(?<![\d.]){value:,g}(?![\d.])", rows[name]), (name, value)
    for step in augment.PRESETS["strong"]:
        name, shown = (step, "always") if isinstance(step, str) else (step.transform, f"{step.probability:g}")
        assert re.search(rf"^\| .*`{name}`.* \| {shown}", presets, re.MULTILINE), name
