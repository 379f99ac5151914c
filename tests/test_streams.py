"""Streams: every clip once a pass for any number of processes and workers, and any place in them gone back to."""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import TONES, random_cases, tiny_config, waveform_collator, write_tone
from faults.harness import everything
from test_resume import cut_after

import audioclf
from audioclf import AudioError, ConfigError, DatasetError, Example
from audioclf.augment import Augmentation
from audioclf.clips import decode
from audioclf.datasets.rows import kept, row_stream
from audioclf.loaders import _loader
from audioclf.readers import RowReader, TableReader
from audioclf.sampling import Share
from audioclf.streams import StreamClips, StreamCollator, StreamSampler

SHARDS = (7, 1, 12, 5, 9)
"""Clips of each shard: 34 in all."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """34 clips as files, in five parquet files of small row groups, and in five tar shards; 6 more for validation."""
    folder, rng = tmp_path_factory.mktemp("streams"), np.random.default_rng(0)
    names, clips = list(TONES), []
    for number in range(sum(SHARDS) + 6):
        path = folder / "clips" / f"{number:02}.wav"
        write_tone(path, TONES[names[number % 3]], float(rng.uniform(0.2, 0.6)), rng)
        clips.append((path, number % 3))
    valid = clips[sum(SHARDS) :]
    to_parquet(valid, folder / "valid.parquet")
    for shard, size in enumerate(SHARDS):
        own, first = clips[sum(SHARDS[:shard]) :][:size], sum(SHARDS[:shard])
        to_parquet(own, folder / "parquet" / f"{shard}.parquet")
        (folder / "tar").mkdir(exist_ok=True)
        with tarfile.open(folder / "tar" / f"{shard}.tar", "w") as archive:
            for number, (path, label) in enumerate(own, first):
                for ending, content in (("wav", path.read_bytes()), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{number:02}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


def to_parquet(clips: list[tuple[Path, int]], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = {"audio": [{"bytes": p.read_bytes(), "path": p.name} for p, _ in clips], "label": [i for _, i in clips]}
    made = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio())
    made.cast_column("label", datasets.ClassLabel(names=list(TONES))).to_parquet(path, batch_size=3)


def parquet(folder: Path):
    files = sorted(map(str, (folder / "parquet").glob("*.parquet")))
    return datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)


def tar(folder: Path):
    columns = {"wav": "binary", "cls": "int64", "__key__": "string", "__url__": "string"}
    features = datasets.Features({name: datasets.Value(kind) for name, kind in columns.items()})
    files = sorted(map(str, (folder / "tar").glob("*.tar")))
    made = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True, features=features)
    return made.cast_column("cls", datasets.ClassLabel(names=list(TONES)))


def one_shard(folder: Path):
    return datasets.load_dataset("parquet", data_files=str(folder / "valid.parquet"), split="train", streaming=True)


def table(folder: Path) -> tuple[Example, ...]:
    paths = sorted((folder / "clips").glob("*.wav"))[: sum(SHARDS)]
    return tuple(Example(str(path), list(TONES)[number % 3]) for number, path in enumerate(paths))


KINDS = {"table": table, "parquet": parquet, "tar": tar, "one shard": one_shard}


def order_of(kind: str, folder: Path, rank: int = 0, num_ranks: int = 1, seed: int = 5, **options) -> StreamSampler:
    """A process's order of batches of two clips, two batches in each process's part of a window."""
    if kind == "table":
        examples = table(folder)

        def make_reader():
            return TableReader(examples, seed)
    else:
        stream = row_stream(KINDS[kind](folder), kind, "cls" if kind == "tar" else None, None, list(TONES))

        def make_reader():
            return RowReader(stream, seed, rank, num_ranks)

    share = Share(rank, num_ranks, 2 * num_ranks) if make_reader().is_shared else Share(window=2)
    settings = {"windows_per_epoch": 10_000, "batch_size": 2, "max_samples": np.inf, **options}
    return StreamSampler(make_reader, seed=seed, num_samples=stream_clips().num_samples, share=share, **settings)


def stream_clips(augmentation: Augmentation = Augmentation(5), max_seconds: float = 30.0) -> StreamClips:
    label2id = {name: number for number, name in enumerate(TONES)}
    return StreamClips(label2id, False, 16_000, max_seconds, augmentation)


def base(names: list[str]) -> list[str]:
    return [re.search(r"([0-9]+)(\.wav)?$", name)[1] for name in names]


def first_pass(order: StreamSampler, num_workers: int) -> list[str]:
    """Names of the clips of the first pass, in the order a loader with so many workers gives them."""
    clips = stream_clips()
    passes = []
    order.set_epoch(1)
    order.num_samples = lambda example: clips.num_samples(example)
    names = []
    loader = _loader(Passes(clips), order, collate_names, 5, num_workers=num_workers, pin_memory=False)
    for batch in loader:
        passes += [passed for _, passed in batch]
        names += [name for name, passed in batch if passed == 1]
        if passes[-1] > 2:
            break
    return base(names)


class Passes:
    """Decodes like the real one, and tells the pass."""

    def __init__(self, clips: StreamClips) -> None:
        self.clips = clips

    def __getitem__(self, clip):
        return self.clips[clip]["name"], clip.pass_number


def collate_names(items):
    return items


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_every_clip_once_a_pass(kind, num_ranks, folder):
    """Whatever the number of processes; and whatever that of workers in the same order."""
    expected = [f"{number:02}" for number in range(34)] if kind != "one shard" else None
    by_workers = []
    for num_workers in (0, 1, 2, 3) if kind != "tar" else (0, 2):
        own = [first_pass(order_of(kind, folder, rank, num_ranks), num_workers) for rank in range(num_ranks)]
        names = [name for of_rank in own for name in of_rank]
        assert sorted(names) == (expected or [f"{number:02}" for number in range(34, 40)])
        by_workers.append(own)
    assert all(own == by_workers[0] for own in by_workers)


@pytest.mark.parametrize("kind", KINDS)
def test_each_pass_has_its_own_order(kind, folder):
    order = order_of(kind, folder)
    order.set_epoch(1)
    passes: dict[int, list[str]] = {}
    for batch in order:
        for clip in batch:
            passes.setdefault(clip.pass_number, []).append(clip.example.name)
        if len(passes) > 3:
            break
    assert sorted(passes[1]) == sorted(passes[2]) == sorted(passes[3])
    assert passes[1] != passes[2] != passes[3] != passes[1]


def flat(batches) -> list[list[tuple[str, int, int]]]:
    return [[(clip.example.name, clip.number, clip.pass_number) for clip in batch] for batch in batches]


@random_cases(50, few=5)
@pytest.mark.parametrize("kind", KINDS)
def test_going_on_from_any_window(kind, cases, folder):
    """Through plain JSON, as a checkpoint has it: the batches that would have come."""
    for case in cases:
        rng = np.random.default_rng(case)
        num_ranks = int(rng.integers(1, 4))
        rank, per_epoch = int(rng.integers(num_ranks)), int(rng.integers(2, 30))
        options = {"windows_per_epoch": per_epoch, "batch_size": int(rng.integers(1, 4)), "seed": case}
        epoch, windows = int(rng.integers(1, 4)), int(rng.integers(0, per_epoch + 1))
        whole = order_of(kind, folder, rank, num_ranks, **options)
        for earlier in range(1, epoch + 1):
            whole.set_epoch(earlier)
            batches, sizes = flat(whole), list(whole.window_sizes())
        position = json.loads(json.dumps(whole.position(epoch, windows)))
        again = order_of(kind, folder, rank, num_ranks, **options)
        again.restore(epoch, windows, position)
        again.set_epoch(epoch, start=windows)
        assert flat(again) == batches[sum(sizes[:windows]) :]
        assert list(again.window_sizes()) == sizes[windows:]


def test_batches_are_of_like_length(folder):
    order = order_of("table", folder, batch_size=4)
    order.set_epoch(1)
    first = []
    for batch in order:
        first += [batch] if batch[0].pass_number == 1 else []
        if batch[0].pass_number > 1:
            break
    lengths = [[stream_clips().num_samples(clip.example) for clip in batch] for batch in first]
    assert max(max(of) - min(of) for of in lengths) < 0.15 * 16_000  # of 0.4 s between the shortest and the longest


def test_a_block_is_no_larger_than_memory_allows(folder, monkeypatch):
    order = order_of("parquet", folder)
    monkeypatch.setattr(audioclf.streams, "BLOCK_BYTES", 1)
    order.set_epoch(1)
    reader = order.make_reader()
    assert len(order._block(reader)) == 4  # a window


class TestSamples:
    """What a streamed clip sounds like, beside the decoded and kept one."""

    @pytest.mark.parametrize("max_seconds", [30.0, 0.25])
    def test_are_those_of_the_cache(self, max_seconds, folder, tmp_path):
        examples = table(folder)
        splits = audioclf.AudioSplits(train=examples, valid=(), test=(), labels=tuple(TONES), name="x")
        kept = decode(splits, sampling_rate=16_000, max_seconds=max_seconds, cache_dir=tmp_path).parts["train"]
        clips = stream_clips(max_seconds=max_seconds)
        by_name = {name: index for index, name in enumerate(kept.names)}
        reader = TableReader(examples, 0)
        for clip in reader.read(100):
            item, index = clips[clip], by_name[clip.example.name]
            assert np.array_equal(item["waveform"], kept[index, 0]["waveform"])
            assert item["label"] == kept.labels[index]
            assert clips.num_samples(clip.example) == pytest.approx(len(item["waveform"]), abs=2)

    def test_a_segment_and_its_length(self, folder):
        (example, *_) = table(folder)
        part = Example(example.audio, "low", start=0.05, end=0.15)
        assert stream_clips().num_samples(part) == 1600
        assert stream_clips().num_samples(Example("nowhere.wav", "low", start=0.05, end=0.15)) == 1600
        assert stream_clips().num_samples(Example("nowhere.wav", "low")) == 480_000

    def test_augmentation_is_of_clip_and_pass(self, folder):
        clips = stream_clips(Augmentation(5, random_crop=True), max_seconds=0.1)
        first, again, later = (
            clips[TableReader(table(folder), 0).read(1)[0]._replace(pass_number=n)] for n in (1, 1, 2)
        )
        assert np.array_equal(first["waveform"], again["waveform"])
        assert not np.array_equal(first["waveform"], later["waveform"])


def test_what_cannot_be_read_is_left_out_of_its_batch(folder):
    clips, collate = stream_clips(), StreamCollator(waveform_collator())
    good, *_ = TableReader(table(folder), 0).read(1)
    bad = good._replace(example=Example(str(folder / "gone.wav"), "low"))
    batch = collate([clips[bad], clips[good]])
    assert batch["names"] == [good.example.name]
    assert batch["input_values"].shape[0] == 1
    gone = str(folder / "gone.wav")
    assert batch["unreadable"] == {gone: f"{gone!r}: no such file."}
    assert collate([clips[bad]])["names"] == []


CHANCE = tiny_config(hidden_dropout=0.1, attention_dropout=0.1, apply_spec_augment=True, mask_time_length=2)
STREAMED = {
    "model": CHANCE,
    "num_epochs": 3,
    "steps_per_epoch": 6,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "random_crop": True,
    "max_seconds": 0.3,
    "augment": "noise",
    "loss": cut_after,
}
"""Every source of chance; 18 steps of 34 clips each pass."""


def data_of(kind: str, folder: Path):
    if kind == "table":
        valid = [Example(str(folder / "clips" / f"{n}.wav"), list(TONES)[n % 3], split="valid") for n in range(34, 40)]
        splits = audioclf.make_splits([*table(folder), *valid], name="table")
        return splits, None
    options = {"label_column": "cls"} if kind == "tar" else {}
    return audioclf.load_dataset(KINDS[kind](folder), **options), str(folder / "clips.csv")


@pytest.fixture(scope="module")
def valid_table(folder) -> Path:
    lines = [f"{folder / 'clips' / f'{n}.wav'},{list(TONES)[n % 3]}" for n in range(34, 40)]
    (folder / "clips.csv").write_text("\n".join(["path,label", *lines]))
    return folder / "clips.csv"


@pytest.fixture(scope="module")
def whole(folder, quick, valid_table, tmp_path_factory) -> dict[str, Path]:
    """A run on each kind of stream that nothing happens to."""
    found = {}
    for kind in ("table", "parquet", "tar"):
        found[kind] = tmp_path_factory.mktemp("whole") / kind
        cut_after.cut(None)
        data, valid = data_of(kind, folder)
        audioclf.train(data, valid, **{**quick, **STREAMED, "output_dir": str(found[kind])})
    return found


class TestTraining:
    def test_counts(self, whole):
        rows = [json.loads(line) for line in (whole["parquet"] / "history.jsonl").open()]
        assert [row["step"] for row in rows if row["event"] == "epoch"] == [6, 12, 18]
        assert len([row for row in rows if row["event"] == "step"]) == 18
        assert rows[-1]["event"] == "end"

    @pytest.mark.parametrize("kind", ["table", "parquet", "tar"])
    def test_workers_change_nothing(self, kind, whole, folder, quick, tmp_path):
        cut_after.cut(None)
        data, valid = data_of(kind, folder)
        options = {**quick, **STREAMED, "output_dir": str(tmp_path / "out"), "num_workers": 2}
        audioclf.train(data, valid, **options)
        assert everything(tmp_path / "out") == everything(whole[kind])

    @random_cases(50, few=2)
    @pytest.mark.parametrize("kind", ["table", "parquet", "tar"])
    def test_cut_anywhere_it_goes_on_bit_by_bit(self, kind, cases, whole, folder, quick, tmp_path):
        for case in cases if kind == "parquet" else list(cases)[:10]:
            rng = np.random.default_rng(case)
            options = {**quick, **STREAMED, "output_dir": str(tmp_path / str(case)), "resume": True}
            data, valid = data_of(kind, folder)
            cut_after.cut(int(rng.integers(1, 35)))
            with pytest.raises(KeyboardInterrupt):
                audioclf.train(data, valid, **options)
            cut_after.cut(None)
            audioclf.train(data, valid, **options, num_workers=int(rng.integers(3)))
            assert everything(tmp_path / str(case)) == everything(whole[kind])

    def test_learns(self, folder, quick, valid_table, tmp_path):
        options = {**quick, "output_dir": str(tmp_path / "out"), "steps_per_epoch": 20, "batch_size": 8}
        result = audioclf.train(parquet(folder), valid_table, **options)
        assert result.best_metrics["accuracy"] > 0.9

    def test_splits_of_one_stream(self, folder, quick, tmp_path):
        """Held-out parts are read whole, into files of the cache, once."""
        parts = datasets.IterableDatasetDict(
            train=parquet(folder), validation=one_shard(folder), test=tar(folder).take(4)
        )
        parts["test"] = one_shard(folder).take(3)
        with pytest.raises(DatasetError, match="is in valid and in test"):
            audioclf.load_dataset(parts, cache_dir=tmp_path)
        parts.pop("test")
        splits = audioclf.load_dataset(parts, cache_dir=tmp_path)
        assert len(splits.valid) == 6
        assert splits.stream.num_shards == 5
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
        assert audioclf.load_dataset(parts, cache_dir=tmp_path).valid == splits.valid
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()} == before
        audioclf.train(splits, **{**quick, "output_dir": str(tmp_path / "out"), "steps_per_epoch": 2, "num_epochs": 1})

    def test_unreadable_clips_are_set_aside_by_name(self, folder, quick, tmp_path, capsys):
        splits, _ = data_of("table", folder)
        train = [*splits.train, Example(str(tmp_path / "gone.wav"), "low")]
        splits = audioclf.make_splits([*train, *splits.valid], name="table")
        options = {**quick, "steps_per_epoch": 9, "num_epochs": 1, "progress": True}
        audioclf.train(splits, output_dir=str(tmp_path / "out"), **options)
        assert f"set aside: {str(tmp_path / 'gone.wav')!r}: no such file." in capsys.readouterr().out
        told = json.loads((tmp_path / "out" / "best" / "audioclf.json").read_text())["data"]["set_aside"]
        assert told == {str(tmp_path / "gone.wav"): f"{str(tmp_path / 'gone.wav')!r}: no such file."}
        with pytest.raises(AudioError, match=r"1 of \d+ clips so far cannot be used.*\n.*gone\.wav"):
            audioclf.train(splits, output_dir=str(tmp_path / "strict"), bad_audio="error", **options)

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_a_step_without_any_readable_clip_is_left_out(self, precision, folder, quick, tmp_path):
        splits, _ = data_of("table", folder)
        train = [*splits.train[:6], Example(str(tmp_path / "gone.wav"), "low")]
        splits = audioclf.make_splits([*train, *splits.valid], name="table")
        options = {**quick, "batch_size": 1, "num_epochs": 2, "steps_per_epoch": 7, "bad_audio": "skip"}
        result = audioclf.train(splits, output_dir=str(tmp_path / "out"), **{**options, "precision": precision})
        assert result.history[-1]["event"] == "end"
        assert [row["step"] for row in result.history if row["event"] == "epoch"] == [6, 12]

    def test_an_error_before_the_first_batch_does_not_hang(self, folder, tmp_path):
        """With workers started and nobody to end them, a script waited for them for ever."""
        (tmp_path / "model.json").write_text(tiny_config().to_json_string())
        code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import audioclf, datasets
from test_streams import Path, parquet
data = parquet(Path({str(folder)!r})).cast_column("label", datasets.Value("int64"))
valid = audioclf.load_dataset({str(folder / "two.csv")!r})
audioclf.train(audioclf.load_dataset(data, labels=["0", "1"]), valid, model={str(tmp_path / "model.json")!r},
    device="cpu", num_workers=1, steps_per_epoch=3, output_dir={str(tmp_path / "out")!r}, cache_dir={str(tmp_path)!r})
"""
        lines = [f"{folder / 'clips' / f'{n}.wav'},{n % 2}" for n in range(34, 40)]
        (folder / "two.csv").write_text("\n".join(["path,label", *lines]))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        assert "has the label '2', which is not among labels" in done.stderr

    def test_held_out_clips_are_kept_by_several_at_a_time(self, folder, tmp_path):
        streams = [row_stream(one_shard(folder), "x", None, None, list(TONES)) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda stream: [clip.audio for clip in kept(stream, "valid", tmp_path)], streams))
        assert all(paths == found[0] for paths in found)
        assert {path.name for path in (tmp_path / "rows").iterdir()} == {Path(path).name for path in found[0]}

    def test_a_file_that_goes_is_told_by_a_worker_in_its_own_words(self, folder, quick, tmp_path):
        """Beyond the limit of the cache it is read again."""
        paths = [shutil.copy(clip.audio, tmp_path) for clip in table(folder)[:8]]
        clips = [Example(path, list(TONES)[number % 3]) for number, path in enumerate(paths)]
        splits, _ = data_of("table", folder)
        splits = audioclf.make_splits([*clips, *splits.valid], name="x")
        options = {**quick, "max_cache_gb": 0, "cache_dir": str(tmp_path / "cache"), "num_epochs": 1, "num_workers": 1}
        audioclf.train(splits, output_dir=str(tmp_path / "first"), **options)
        with pytest.raises(AudioError, match=f"^{re.escape(repr(str(paths[3])))}: no such file.$"):
            audioclf.train(
                splits,
                output_dir=str(tmp_path / "second"),
                loss=lambda config: unlinking(paths[3]),
                **{**options, "num_epochs": 9},
            )


def unlinking(path: str):
    def loss(logits, labels):
        Path(path).unlink(missing_ok=True)
        return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

    return loss


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"steps_per_epoch": 0}, "steps_per_epoch=0 must be"),
            ({"steps_per_epoch": 5, "chunk_seconds": 5.0}, "chunk_seconds needs all training clips at hand"),
            ({"steps_per_epoch": 5, "balanced_sampling": True}, "balanced_sampling needs all"),
            ({"steps_per_epoch": 5, "augment": ("noise", "mixup")}, "mixup in augment needs all"),
            ({"steps_per_epoch": 5, "cache_features": True, "freeze": "backbone"}, "cache_features needs all"),
        ],
    )
    def test_options(self, options, sentence):
        with pytest.raises(ConfigError, match=sentence):
            audioclf.TrainConfig(**options)

    def test_no_steps(self, folder, quick, valid_table, tmp_path):
        with pytest.raises(ConfigError, match="of which nobody knows how long it is: give steps_per_epoch"):
            audioclf.train(parquet(folder), valid_table, **{**quick, "output_dir": str(tmp_path / "out")})

    def test_no_valid(self, folder, quick, tmp_path):
        with pytest.raises(DatasetError, match="a stream cannot be cut into train and valid"):
            audioclf.train(parquet(folder), steps_per_epoch=2, **{**quick, "output_dir": str(tmp_path / "out")})

    def test_balanced_weights(self, folder, quick, valid_table, tmp_path):
        options = {**quick, "output_dir": str(tmp_path / "out"), "class_weights": "balanced", "steps_per_epoch": 2}
        with pytest.raises(ConfigError, match="does not tell beforehand: give a weight for every label"):
            audioclf.train(parquet(folder), valid_table, **options)

    def test_long_clips(self, folder, quick, valid_table, tmp_path):
        options = {**quick, "output_dir": str(tmp_path / "out"), "max_batch_seconds": 5.0, "steps_per_epoch": 2}
        with pytest.raises(ConfigError, match="max_batch_seconds=5 is less than the 30 s that a streamed"):
            audioclf.train(parquet(folder), valid_table, **options)

    def test_another_number_of_processes(self, folder):
        stream = row_stream(parquet(folder), "x", None, None, list(TONES))
        for num_ranks in (1, 3):
            with pytest.raises(ConfigError, match="its shards were dealt out to 2 processes, and a run on it goes on"):
                RowReader(stream, 0, 0, num_ranks, begun_with=2)

    @pytest.mark.parametrize("begun_with", [1, 7])
    def test_where_all_read_all_any_number_goes_on(self, begun_with, folder):
        """Five shards: the effective batch, and which clips come together, are those of the beginning."""
        stream = row_stream(parquet(folder), "x", None, None, list(TONES))
        readers = [RowReader(stream, 0, rank, ranks, begun_with) for ranks in (1, 2, 7) for rank in range(ranks)]
        assert all(reader.is_shared for reader in readers)
        reads = [[(clip.example.name, clip.number) for clip in reader.read(40)] for reader in readers]
        assert all(read == reads[0] for read in reads)

    def test_classes(self, folder):
        plain = parquet(folder).cast_column("label", datasets.Value("int64"))
        with pytest.raises(DatasetError, match="which classes a stream has is not known before its end: give labels="):
            audioclf.load_dataset(plain)
        stream = audioclf.load_dataset(plain, labels=["0", "1"]).stream
        with pytest.raises(DatasetError, match="has the label '2', which is not among labels"):
            RowReader(stream, 0).read(34)

    def test_what_needs_all_clips(self, folder, tmp_path):
        splits = audioclf.load_dataset(parquet(folder))
        for call in (audioclf.inspect, audioclf.to_datasets, audioclf.build_explorer, audioclf.cross_validate):
            options = {"output_dir": str(tmp_path / "out")} if call is audioclf.cross_validate else {}
            with pytest.raises(DatasetError, match="needs all clips at hand, and the training clips are a stream"):
                call(splits, **options)

    def test_labels_of_two_kinds(self, folder, quick, valid_table, tmp_path):
        data = audioclf.load_dataset(parquet(folder), multi_label=True)
        with pytest.raises(
            DatasetError, match="the stream has any number of labels a clip, and the clips given as valid="
        ):
            audioclf.train(data, valid_table, steps_per_epoch=2, **{**quick, "output_dir": str(tmp_path / "out")})

    def test_odd_rows(self, folder, tmp_path):
        raw = datasets.Dataset.from_dict({"audio": [{"bytes": None, "path": None}], "label": ["a"]})
        data = raw.cast_column("audio", datasets.Audio()).to_iterable_dataset()
        stream = row_stream(data, "x", None, None, ["a", "b"])
        with pytest.raises(DatasetError, match="x, valid, row 0: has no audio; filter such rows out"):
            list(kept(stream, "valid", tmp_path))
        (tmp_path / "rows").touch()
        with pytest.raises(DatasetError, match=r"The cache of held-out clips in .* cannot be written"):
            list(kept(row_stream(one_shard(folder), "x", None, None, None), "valid", tmp_path))

    def test_formats_of_other_libraries(self, folder):
        stream = row_stream(parquet(folder).with_format("numpy"), "x", None, None, None)
        assert len(RowReader(stream, 0).read(34)) == 34

    def test_columns(self, folder):
        made = datasets.IterableDataset.from_generator(lambda: iter([{"audio": b"", "label": 1}]))
        with pytest.raises(DatasetError, match="the types of its columns are not known"):
            audioclf.load_dataset(made)
        with pytest.raises(DatasetError, match="has no Audio column, and none of bytes"):
            audioclf.load_dataset(parquet(folder).remove_columns("audio"))

    def test_a_stream_that_breaks_off(self, folder):
        def broken(row):
            raise ConnectionError("the line is dead")

        data = parquet(folder).cast_column("audio", datasets.Audio(decode=False))
        stream = audioclf.load_dataset(data.map(broken, features=data.features)).stream
        with pytest.raises(DatasetError, match=r"broke off \(ConnectionError: the line is dead\); read it again"):
            RowReader(stream, 0).read(1)

    def test_steps_before_that_would_decode(self, folder):
        stream = audioclf.load_dataset(parquet(folder).filter(lambda row: True)).stream
        with pytest.raises(DatasetError, match=r"leave its audio as it is before any other step: dataset\.cast_column"):
            RowReader(stream, 0).read(1)

    @pytest.mark.parametrize("options", [{}, {"probabilities": [0.5, 0.5]}, {"stopping_strategy": "all_exhausted"}])
    def test_streams_that_are_interleaved(self, options, folder, quick, valid_table, tmp_path):
        parts = [
            data.cast_column("audio", datasets.Audio(decode=False)) for data in (parquet(folder), one_shard(folder))
        ]
        with pytest.raises(
            DatasetError, match=r"interleave_datasets\(\) does not allow: join the streams by datasets\.conc"
        ):
            audioclf.train(
                datasets.interleave_datasets(parts, **options),
                valid_table,
                steps_per_epoch=2,
                **{**quick, "output_dir": str(tmp_path / "out")},
            )
        joined = audioclf.load_dataset(datasets.concatenate_datasets(parts)).stream
        assert len(RowReader(joined, 0).read(1000)) == len(list(parts[0])) + len(list(parts[1]))

    @pytest.mark.parametrize("step", ["skip", "take", "shuffle"])
    def test_steps_that_shards_do_not_allow(self, step, folder, quick, valid_table, tmp_path):
        data = parquet(folder).cast_column("audio", datasets.Audio(decode=False))
        data = data.shuffle(seed=1, buffer_size=10) if step == "shuffle" else getattr(data, step)(10)
        with pytest.raises(DatasetError, match=rf"shard by shard, which {step}\(\) does not allow"):
            audioclf.train(data.filter(lambda row: True), valid_table, **{**quick, "output_dir": str(tmp_path / "out")})

    def test_no_clips(self, folder):
        data = parquet(folder).cast_column("audio", datasets.Audio(decode=False)).filter(lambda row: False)
        stream = audioclf.load_dataset(data).stream
        with pytest.raises(DatasetError, match="has no clips"):
            RowReader(stream, 0).read(1)
