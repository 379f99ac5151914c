"""What a run tells when its files cannot be written."""

import shutil
import threading

import torch

import audioclf


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
