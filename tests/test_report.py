"""The report: one file that needs nothing else, with what the model gets wrong to listen to."""

import re
from dataclasses import replace

import numpy as np
import pytest
from browser import chromium
from conftest import write_tone

import audioclf
from audioclf import review
from audioclf.cli import main

HOSTILE = ("<script>alert(1)</script>", "a&b\"'{{ 7 * 7 }}", "$x_{1}$ " + "very long " * 12, "تجربة")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Names that could break a page; some labels of validation are wrong, and one class lacks clips there."""
    folder, rng = tmp_path_factory.mktemp("hostile"), np.random.default_rng(0)
    found = []
    for part, count in (("train", 10), ("valid", 8)):
        for place, label in enumerate(HOSTILE):
            for number in range(count if part == "train" or place < 3 else 0):
                path = folder / f"<b>{part}</b> & {place}" / f'{number} "q".wav'
                write_tone(path, (300, 700, 1500, 3300)[place], 0.3 + 0.1 * number, rng)
                wrong = part == "valid" and number == 0 and place < 2
                group = f"<i>{number % 2}</i>" if part == "valid" else f"t{number % 2}"
                given = HOSTILE[1 - place] if wrong else label
                found.append(audioclf.Example(str(path), given, part, group=group))
    return audioclf.make_splits(found, name="<u>hostile</u>", labels=HOSTILE)


@pytest.fixture(scope="module")
def run(clips, quick, tmp_path_factory):
    options = {**quick, "num_epochs": 8, "report": True}
    return audioclf.train(clips, output_dir=tmp_path_factory.mktemp("report") / "out", **options)


@pytest.fixture(scope="module")
def page(run) -> str:
    return (run.output_dir / "report.html").read_text(encoding="utf-8")


def test_everything_is_escaped(page):
    outside = re.sub(r"data:[a-z/]+;base64,[A-Za-z0-9+/=]+", "", page)
    assert "<script" not in outside
    assert "<b>valid</b>" not in outside
    assert "<u>hostile" not in outside
    assert "<i>0</i>" not in outside
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in outside
    assert "{{ 7 * 7 }}" in outside
    assert "تجربة" in outside


def test_nothing_comes_from_elsewhere(page):
    links = re.findall(r"(?:src|href|xlink:href|url)\s*[=(]\s*[\"']?([^\"')\s>]{1,40})", page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links), set(links)


def test_what_it_tells(run, page):
    best = run.best_metrics
    assert f'<b>{best["accuracy"]:.3f}</b><span class="soft">{best["accuracy_ci"][0]:.3f} to' in page
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    for words in (
        "Validation",
        "Classes",
        "Confusion",
        "Calibration",
        "Slices",
        "The data",
        "Options",
        "torch",
        "epoch",
    ):
        assert words in text
    assert "num_epochs 8" in text
    assert page.count("<svg") == 3  # two curves and a reliability diagram
    assert page.count("<audio") == page.count("<img") > 0
    assert len(page) < 3_000_000


def test_planted_errors_come_first(clips, run, page):
    """The model knows the tones; the two clips with exchanged labels lead the list, marked."""
    names = re.findall(r'<p class="name">(.*?) ·', page)
    first = {name.split("/")[-2] + name.split("/")[-1] for name in names[:2]}
    assert all(name.startswith(("b&gt; &amp; 0", "b&gt; &amp; 1")) and "0 " in name for name in first)
    assert page.index("likely a wrong label") < page.index(names[0])


def test_in_a_browser(run):
    """No network, no message on the console, nothing wider than the window, players that play, light and dark."""
    colours = {}
    with chromium() as browser:
        for width in (400, 1600):
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
                )
                opened, told, asked = context.new_page(), [], []
                opened.on("console", lambda message, told=told: told.append(message.text))
                opened.on("pageerror", lambda error, told=told: told.append(str(error)))
                opened.on("request", lambda request, asked=asked: asked.append(request.url))
                opened.goto((run.output_dir / "report.html").as_uri())
                assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
                seconds = opened.evaluate(
                    "async () => { const a = document.querySelector('audio'); a.preload = 'auto'; a.load();"
                    "await new Promise(done => { a.onloadedmetadata = done; a.onerror = done; }); return a.duration; }"
                )
                assert 0.2 < seconds < 2
                colours[scheme] = opened.evaluate("getComputedStyle(document.body).backgroundColor")
                assert told == []
                assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
                context.close()
    assert colours["light"] != colours["dark"]


def test_it_changes_nothing(clips, run, quick, tmp_path):
    without = audioclf.train(clips, output_dir=tmp_path / "out", **{**quick, "num_epochs": 8})
    assert without.best_metrics == run.best_metrics
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_report_that_cannot_be_written_loses_nothing(clips, quick, tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("audioclf.report_page.write_file", full)
    options = {**quick, "num_epochs": 1, "report": True, "progress": True}
    result = audioclf.train(clips, output_dir=tmp_path / "out", **options)
    assert "report.html' could not be written (OSError: [Errno 28] No space left on device)." in capsys.readouterr().out
    assert result.best_epoch == 1
    assert audioclf.load(result.checkpoint_dir).labels == clips.labels


def test_resumed_after_the_best_epoch(tones, quick, tmp_path):
    """The logits of that epoch are gone, and computed again."""
    options = {**quick, "report": True, "output_dir": tmp_path / "out", "resume": True}
    audioclf.train(tones, **{**options, "num_epochs": 3})
    result = audioclf.train(tones, **{**options, "num_epochs": 4, "learning_rate": quick["learning_rate"]})
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"<b>{result.best_metrics['accuracy']:.3f}</b>" in text
    assert f"<b>{result.test_metrics['loss']:.3f}</b>" in text


class TestAnyCheckpoint:
    def test_command(self, trained, tones, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        assert main(["report", str(trained.output_dir), str(tones), "--cache-dir", str(tmp_path / "cache")]) == 0
        assert capsys.readouterr().out == "report.html\n"
        text = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert f"<b>{trained.test_metrics['accuracy']:.3f}</b>" in text
        assert text.count("<svg") == 3

    def test_multi_label(self, tones, quick, tmp_path):
        splits = audioclf.load_dataset(tones)
        parts = {
            part: [replace(clip, label=(clip.label, "tone")) for clip in clips] for part, clips in splits.parts.items()
        }
        several = audioclf.AudioSplits(**parts, name="several", labels=(*splits.labels, "tone"))
        result = audioclf.train(several, output_dir=tmp_path / "out", **{**quick, "num_epochs": 1})
        path = audioclf.report(result.checkpoint_dir, several, "valid", tmp_path / "page.html", device="cpu")
        text = path.read_text(encoding="utf-8")
        assert "average precision" in text
        assert f"<b>{result.best_metrics['map']:.3f}</b>" in text

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--output", "{folder}/no/where.html"], "cannot be written"),
            (["--split", "middle"], "split"),
        ],
    )
    def test_refusals(self, words, sentence, trained, tones, tmp_path, capsys):
        words = [word.format(folder=tmp_path) for word in words]
        options = ["--cache-dir", str(tmp_path / "cache")]
        assert main(["report", str(trained.checkpoint_dir), str(tones), *words, *options]) == 2
        assert sentence in capsys.readouterr().err


class TestReview:
    def test_label_quality(self):
        """The closed form, clip by clip."""
        rng = np.random.default_rng(0)
        scores = rng.dirichlet(np.ones(4), 50)
        targets = rng.integers(0, 4, 50)
        expected = [(1 + p[t] - max(np.delete(p, t))) / 2 for p, t in zip(scores, targets, strict=True)]
        assert review.label_quality(targets, scores) == pytest.approx(expected)
        several = rng.random((50, 4)) < 0.4
        expected = [
            min(p if has else 1 - p for p, has in zip(*row, strict=True)) for row in zip(scores, several, strict=True)
        ]
        assert review.label_quality(several, scores) == pytest.approx(expected)

    def test_likely_wrong_as_the_paper_has_it(self):
        """Off the diagonal of the confident joint, counted by hand."""
        scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95], [0.6, 0.4]])
        targets = np.array([0, 0, 1, 1, 0, 1])
        # Class 0 is usually (0.9 + 0.8 + 0.05) / 3 = 0.58 sure, class 1 (0.9 + 0.8 + 0.4) / 3 = 0.7.
        assert review.likely_wrong(targets, scores).tolist() == [False, False, False, False, True, True]

    def test_likely_wrong_of_several_labels(self):
        scores = np.array([[0.9], [0.8], [0.1], [0.2], [0.95], [0.1]])
        targets = np.array([[1], [1], [0], [0], [0], [1]], dtype=bool)
        assert review.likely_wrong(targets, scores).tolist() == [False, False, False, False, True, True]

    def test_slices_hold_every_clip_once(self):
        rng = np.random.default_rng(0)
        for values in (rng.random(101), rng.integers(0, 3, 101).astype(float)):
            hits = rng.random(101) < 0.7
            slices = review.by_value(values, hits, "s")
            assert sum(part.num_clips for part in slices) == 101
            assert sum(part.share * part.num_clips for part in slices) == pytest.approx(hits.sum())
        assert review.by_value(np.ones(20), hits[:20], "s") == []
        groups = [None, "a", "a", "a", "b", "b", "b", "c"]
        found = review.by_group(groups, np.array([1, 1, 1, 0, 1, 0, 0, 0], dtype=bool))
        assert [(part.name, part.num_clips, part.share) for part in found] == [("b", 3, 1 / 3), ("a", 3, 2 / 3)]
