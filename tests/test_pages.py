"""The pages of Gradio: real servers, real Chromium, sounds that really play."""

import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
from browser import chromium
from conftest import write_tone

import audioclf
from audioclf import audio
from audioclf.cli import main


@contextmanager
def server(*words: object):
    """The address of a page, served by the real command; Ctrl-C ends it without a word."""
    command = [sys.executable, "-m", "audioclf", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert select.select([process.stdout], [], [], 90)[0], "nothing was served"
        line = process.stdout.readline()
        (address,) = re.findall(r"^(http://127\.0\.0\.1:\d+/) - Ctrl-C ends it$", line) or [process.stderr.read()]
        yield address
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.wait()


@contextmanager
def opened(address: str, width: int = 1600, scheme: str = "light"):
    """A page in a browser, which asks nobody but the server, and says nothing on its console."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        told, asked = [], []
        page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # The player's own word on a file that is no sound.
        assert [text for text in told if "MediaError" not in text] == []
        assert all(url.startswith((address, "data:", "blob:")) for url in asked)


def until(check, seconds: float = 20.0):
    """What `check` gives, once it is something."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("explore"), np.random.default_rng(0)
    for part in ("train", "test"):
        for label, frequency in (("<b>high", 3000), ("low", 300)):
            for number in range(5):
                path = folder / part / label.replace("/", "") / f"{number} of {part}.wav"
                write_tone(path, frequency, 2.0, rng, rate=22_050)
    (folder / "train" / "low" / "broken.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="module")
def explorer(data):
    with server("explore", data) as address:
        yield address


@pytest.fixture(scope="module")
def app(trained):
    with server("app", trained.checkpoint_dir, "--device", "cpu") as address:
        yield address


class TestExplore:
    def value(self, page, name: str) -> str:
        return page.input_value(f"#{name} textarea")

    def test_listening(self, explorer):
        """Random clips at first; then those of a part and a class; the numbers are NumPy's."""
        with opened(explorer) as page:
            until(lambda: page.locator("audio").count() >= 6)
            shown = until(lambda: self.value(page, "about"))
            assert "label:" in shown
            page.get_by_label("part", exact=True).click()
            page.get_by_role("option", name="test").click()
            assert until(lambda: "of test" in self.value(page, "about"))
            page.get_by_label("class", exact=True).click()
            page.get_by_role("option", name="low").click()
            assert until(lambda: "label: low" in self.value(page, "about"))
            name = self.value(page, "about").split("\n")[0]
            assert until(lambda: page.locator("#before #duration").inner_text() == "0:02")
            page.locator("#before button[aria-label='Play']").click()
            assert until(lambda: page.locator("#before #time").inner_text() == "0:01")
            waveform = audio.load(name, 16_000)
            text = until(lambda: page.locator("#numbers").inner_text())
            assert f"{soundfile.info(name).frames}" in text
            assert f"{len(waveform)}" in text
            assert f"{waveform.astype(np.float64).var():.6g}" in text
            assert page.locator("b", has_text="high").count() == 0  # a label is a text

    def test_a_broken_file_and_a_narrow_window(self, explorer):
        with opened(explorer, width=400, scheme="dark") as page:
            until(lambda: self.value(page, "about"))
            page.get_by_label("name contains").fill("broken")
            page.get_by_label("name contains").press("Enter")
            assert until(lambda: "libsndfile cannot read it" in self.value(page, "about"))
            page.get_by_label("name contains").fill("")
            page.get_by_label("name contains").press("Enter")
            assert until(lambda: "label:" in self.value(page, "about"))


class TestApp:
    def test_scores_are_predicts(self, app, trained, tones, tmp_path, capsys):
        file = tones / "test" / "low" / "low 1.wav"
        assert main(["predict", str(trained.checkpoint_dir), str(file), "--json"]) == 0
        expected = json.loads(capsys.readouterr().out)["scores"]
        (tmp_path / "broken.wav").write_text("no sound")
        with opened(app) as page:
            page.set_input_files("input[type=file]", str(file))
            text = until(
                lambda: page.locator("#scores").inner_text() if "%" in page.locator("#scores").inner_text() else ""
            )
            for row in expected:
                assert re.search(rf"{row['label']}\s+{row['score'] * 100:.0f}%", text), text
            page.click("#when")
            assert until(lambda: expected[0]["label"] in page.locator("#segments").inner_text())
            page.get_by_label("Clear").first.click()
            page.set_input_files("input[type=file]", str(tmp_path / "broken.wav"))
            assert until(lambda: "'broken.wav': libsndfile cannot read it" in page.locator("body").inner_text())
            page.reload()
            page.set_input_files("input[type=file]", str(file))
            assert until(lambda: "%" in page.locator("#scores").inner_text())


def test_a_port_that_is_taken(data, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["explore", str(data), "--port", str(port)]) == 2
    assert f"host='127.0.0.1' and port={port} cannot be used" in capsys.readouterr().err


def test_without_gradio(data, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["explore", str(data)]) == 2
    assert "The page needs Gradio: pip install 'audioclf[app]'." in capsys.readouterr().err


def test_no_data(capsys):
    assert main(["explore", "./nowhere"]) == 2
    assert "'./nowhere': no such file or folder." in capsys.readouterr().err


def test_in_a_notebook(data, trained):
    """The functions give what Gradio shows itself."""
    import gradio

    assert isinstance(audioclf.build_explorer(audioclf.load_dataset(data)), gradio.Blocks)
    assert isinstance(audioclf.build_app(audioclf.load(trained.checkpoint_dir, device="cpu")), gradio.Blocks)
