"""What a run tells when its files, or the terminal, cannot be written."""

import io
import os
import shutil
import sys
import threading

import torch

import audioclf
from audioclf.export import read_metadata


def test_a_board_that_cannot_be_written_ends_with_one_sentence(tones, quick, tmp_path, capfd, monkeypatch):
    """No traceback of TensorBoard's thread beside it, and the run goes on."""

    class BoardInTheWay(torch.nn.CrossEntropyLoss):
        """Puts a file in the board's place at the first micro-batch, when the board is open."""

        def __init__(self, config):
            super().__init__(reduction="none")

        def forward(self, logits, labels):
            board = tmp_path / "out" / "tensorboard"
            if board.is_dir():
                shutil.rmtree(board)
                board.write_text("in the way")
            return super().forward(logits, labels)

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # pytest's own prints nothing
    options = {**quick, "num_epochs": 2, "progress": True}
    result = audioclf.train(tones, output_dir=tmp_path / "out", loss=BoardInTheWay, **options)
    out, err = capfd.readouterr()
    assert [row["event"] for row in result.history].count("epoch") == 2
    assert out.count("TensorBoard's file cannot be written") == 1
    assert "Traceback" not in err
    assert "Exception in thread" not in err
    assert threading.excepthook is threading.__excepthook__


class FullAfterAWhile(io.StringIO):
    """A terminal's stand-in: a log on a disk that fills up."""

    writes = 0

    def write(self, text):
        self.writes += 1
        if self.writes > 20:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_terminal_that_is_gone_does_not_end_the_run(tones, quick, tmp_path, monkeypatch):
    log = FullAfterAWhile()
    monkeypatch.setattr(sys, "stdout", log)
    monkeypatch.setattr(sys, "stderr", log)
    result = audioclf.train(tones, output_dir=tmp_path / "out", **{**quick, "num_epochs": 2, "progress": True})
    assert log.writes > 20
    assert [row["event"] for row in result.history].count("epoch") == 2


def test_what_the_terminal_has_no_letters_for(tones, quick, tmp_path, monkeypatch):
    shutil.copytree(tones, tmp_path / "노래")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    options = {**quick, "num_epochs": 1, "progress": True}
    audioclf.train(tmp_path / "노래", output_dir=tmp_path / "out", **options)
    assert rb"\ub178\ub798: 3 classes" in terminal.buffer.getvalue()


def test_a_clip_whose_name_is_no_text_is_set_aside_in_the_checkpoint(tones, quick, tmp_path):
    """Half a character in its name, which JSON can escape and UTF-8 cannot write."""
    shutil.copytree(tones, tmp_path / "data")
    (tmp_path / "data" / "train" / "low" / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"no sound")
    options = {**quick, "num_epochs": 1, "bad_audio": "skip"}
    result = audioclf.train(tmp_path / "data", output_dir=tmp_path / "out", **options)
    (name,) = read_metadata(str(result.checkpoint_dir))["data"]["set_aside"]
    assert name.endswith("caf\udce9.wav")
