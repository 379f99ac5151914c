"""C and D: a disk that is full, and checkpoints that are damaged."""

import functools
import json
import random
import resource as limits
import signal
from pathlib import Path
from typing import Any

from audioclf import checkpoint, resume

from .harness import child, copy_of, ended, everything, options, saved_step, train, whole


def full_disk(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Goes on with a run while no file may grow beyond so many bytes; what was there before stays whole."""
    same = {"lr_schedule": "constant", "warmup_ratio": 0.0}  # whatever the number of epochs
    first = options(workspace, "full", num_epochs=1 if quick else 2, **same)
    uncut = options(workspace, "not full", num_epochs=2 if quick else 4, **same)
    assert ended(child(train, data, first)) == 0
    assert ended(child(train, data, uncut)) == 0
    largest = max(file.stat().st_size for file in Path(first["output_dir"]).rglob("*") if file.is_file())
    count = 2 if quick else 50
    outcomes = {"ended with one clear error": 0, "could do without": 0}
    said = workspace / "full.txt"
    for number in range(count):
        limit = int(1.1 * largest * number / count)
        folder = copy_of(Path(first["output_dir"]), workspace / "injured")
        run = {**uncut, "output_dir": str(folder), "resume": True}
        status = ended(child(train, data, run, said, functools.partial(_limit_files, limit)))
        assert status in (0, 2), (limit, status)
        for name in ("best", "last"):
            newest = next(path for path in checkpoint.generations(folder / name) if checkpoint.damage(path) is None)
            assert whole(newest), (limit, newest)
        assert saved_step(folder) >= 8 * first["num_epochs"], limit
        if status == 2:
            assert "File too large" in said.read_text(), said.read_text()
            assert "\n" not in said.read_text()
        outcomes["ended with one clear error" if status == 2 else "could do without"] += 1
        assert ended(child(train, data, run)) == 0, limit  # there is room again
        assert everything(folder)["last"] == everything(Path(uncut["output_dir"]))["last"], limit
    return {"offsets": count, **outcomes}


def damaged_checkpoints(workspace: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Flips bits and cuts files short: every time it is seen, and the checkpoint before is used."""
    run = options(workspace, "damaged", num_epochs=2, save_total_limit=3)
    process = child(train, data, run, None, stop_soon)
    assert ended(process) == 130
    original = Path(run["output_dir"])
    earlier = json.loads((original / "last-1" / "audioclf.json").read_text())["step"]
    rng = random.Random(2)
    files = sorted(path.name for path in (original / "last").iterdir())
    detected = fell_back = 0
    count = 40 if quick else 400
    for kind in ("flip", "truncation"):
        for number in range(count):
            file = original / "last" / files[number % len(files)]
            content = file.read_bytes()
            position = rng.randrange(len(content))
            if kind == "flip":
                file.write_bytes(
                    content[:position] + bytes([content[position] ^ 1 << rng.randrange(8)]) + content[position + 1 :]
                )
            else:
                file.write_bytes(content[:position])
            detected += checkpoint.damage(original / "last") is not None
            saved = resume.find(original)
            fell_back += saved.state.step == earlier and "is damaged" in saved.notes[0]
            file.write_bytes(content)
    assert detected == fell_back == 2 * count, (detected, fell_back)
    return {"flips": count, "truncations": count, "detected": detected, "fell back": fell_back}


def _limit_files(num_bytes: int) -> None:
    limits.setrlimit(limits.RLIMIT_FSIZE, (num_bytes, limits.getrlimit(limits.RLIMIT_FSIZE)[1]))


def stop_soon() -> None:
    """Ctrl-C during the 13th step."""
    from .resuming import CutAfter  # its count of losses

    cut_after = CutAfter()
    cut_after.cut(13)
    import audioclf.objective as objective

    objective.build_loss = lambda loss, config, positive_weights=None: cut_after(config)
    signal.signal(signal.SIGINT, signal.default_int_handler)
