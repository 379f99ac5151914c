"""Memory while a stream is trained on, minute after minute, and how fast clips come.

Usage: python benchmarks/bench_stream.py [--minutes 30] [--shards 8] [--clips 64] [--workers 2] [--json FILE]

Parquet shards of clips of 4 to 10 s (16 kHz wav), read as a `datasets.IterableDataset`; a tiny encoder, so that reading
and decoding are what takes time; random crops of 2 s. Memory is that of all processes together, every 2 s: their own
pages, shared ones once, and what the largest of them has of files, libraries above all, which other programs may share.
The first tenth of the time, in which blocks and caches fill, does not count. Linux only.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import psutil
import soundfile
from measure import parser, write

SCRIPT = """
import sys
import datasets, transformers
import audioclf
shards, valid, folder, workers = sys.argv[1:]
shape = dict(conv_dim=(16,) * 7, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
             num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2)
data = datasets.load_dataset("parquet", data_files=shards + "/*.parquet", split="train", streaming=True)
audioclf.train(
    data, valid, model=transformers.HubertConfig(**shape), steps_per_epoch=200, num_epochs=10**6, max_seconds=2.0,
    random_crop=True, output_dir=folder + "/run", cache_dir=folder + "/cache", device="cpu", precision="fp32",
    num_workers=int(workers), progress=False,
)
"""


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--minutes", type=float, default=30)
    made.add_argument("--shards", type=int, default=8)
    made.add_argument("--clips", type=int, default=64, help="of each shard")
    made.add_argument("--workers", type=int, default=2)
    options = made.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, options.shards, options.clips)
        arguments = [str(folder / "shards"), str(folder / "valid"), name, str(options.workers)]
        with (folder / "output").open("w") as output:
            run = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments], stdout=output, stderr=output)
            began, samples = time.monotonic(), []
            while run.poll() is None and time.monotonic() - began < 60 * options.minutes:
                time.sleep(2)
                samples.append(memory_mib(run.pid))
            run.send_signal(signal.SIGTERM)
            if run.wait() != 128 + signal.SIGTERM:
                raise SystemExit((folder / "output").read_text())
        history = [json.loads(line) for line in (folder / "run" / "history.jsonl").open()]
    counted = np.array(samples[len(samples) // 10 :])
    least, median, most = (float(value) for value in np.quantile(counted, (0, 0.5, 1)))
    write(
        options,
        {
            "memory_mib": dict(zip(("least", "median", "most"), (least, median, most), strict=True)),
            "beside_the_median": [round(least / median - 1, 4), round(most / median - 1, 4)],
            "of_each_tenth": [round(float(np.median(part))) for part in np.array_split(counted, 10)],
            "steps": history[-1]["step"],
            "clips_per_second": round(8 * history[-1]["step"] / history[-1]["time"]["seconds"], 1),
        },
    )


def prepare(folder: Path, num_shards: int, num_clips: int) -> None:
    """The shards, and a folder of eight clips for validation."""
    rng = np.random.default_rng(0)
    for number in range(num_shards):
        paths = [folder / "wav" / f"{number} {clip}.wav" for clip in range(num_clips)]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            soundfile.write(path, 0.1 * rng.standard_normal(int(16_000 * rng.uniform(4, 10))), 16_000)
        audio = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
        rows = {"audio": audio, "label": [clip % 2 for clip in range(num_clips)]}
        data = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
        data = data.cast_column("label", datasets.ClassLabel(names=["a", "b"]))
        (folder / "shards").mkdir(exist_ok=True)
        data.to_parquet(folder / "shards" / f"{number}.parquet", batch_size=16)
    for number in range(8):
        path = folder / "valid" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(32_000), 16_000)


def memory_mib(pid: int) -> float:
    """Of a process and all that it has started."""
    own, of_files = 0, [0]
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        except OSError:  # it has ended
            continue
        kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.endswith("kB")}
        own += kib["Pss_Anon"] + kib["Pss_Shmem"]
        of_files.append(kib["Rss"] - kib["Anonymous"])
    return (own + max(of_files)) / 1024


if __name__ == "__main__":
    main()
