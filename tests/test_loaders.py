"""Loaders: the sampler's batches whatever the workers, collated ahead of their use."""

import dataclasses
import threading
import time

import numpy as np
import pytest
import torch
from conftest import waveform_collator

from audioclf import cache
from audioclf.augment import make_augmentation
from audioclf.clips import Clips
from audioclf.loaders import make_loader, prefetch
from audioclf.mixup import MixedClips
from audioclf.sampling import LengthBucketSampler


def epoch_of(lengths, batch_size, seed, epoch) -> list[list[int]]:
    sampler = LengthBucketSampler(lengths, batch_size, seed)
    sampler.set_epoch(epoch)
    return [[index for index, _ in batch] for batch in sampler]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Clips:
    """21 clips of noise, the long ones cropped at random."""
    lengths = np.random.default_rng(0).integers(400, 3000, 21)
    store = cache.build(
        [str(i) for i in range(21)],
        lambda i: np.random.default_rng(i).standard_normal(lengths[i]).astype(np.float32),
        recipe="noise",
        cache_dir=tmp_path_factory.mktemp("cache"),
    )
    return Clips(
        store=store,
        positions=tuple(range(21)),
        starts=np.zeros(21, dtype=np.int64),
        names=tuple(str(i) for i in range(21)),
        groups=np.arange(21),
        labels=np.arange(21) % 3,
        lengths=np.minimum(lengths, 2000),
        augmentation=make_augmentation(0, True, ("noise", "shift"), 16_000),
    )


def loader_of(clips, seed, num_workers=0):
    return make_loader(clips, waveform_collator(), batch_size=4, seed=seed, num_workers=num_workers, pin_memory=False)


@pytest.mark.parametrize("seed", [3, None])
def test_loader_gives_the_samplers_batches(clips, seed):
    loader = loader_of(clips, seed)
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        batches = list(loader)
        assert [batch["index"].tolist() for batch in batches] == epoch_of(clips.lengths, 4, seed, epoch)
        for batch in batches:
            assert batch["labels"].tolist() == [int(i) % 3 for i in batch["index"]]
            assert batch["attention_mask"].sum(dim=1).tolist() == [clips.lengths[i] for i in batch["index"]]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("seed", [3, None])
def test_loading_leaves_the_global_stream_alone(clips, seed, num_workers):
    """Else dropout would depend on how often a loader was started, and a resumed run differ from a whole one."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    loader = loader_of(clips, seed, num_workers)
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        assert sum(len(batch["index"]) for batch in loader) == 21
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002


@pytest.mark.parametrize("augment", [("noise", "shift"), ("strong", "mixup")])
@pytest.mark.parametrize("seed", [3, None])
def test_workers_change_nothing(clips, seed, augment):
    clips = dataclasses.replace(clips, augmentation=make_augmentation(0, True, augment, 16_000))
    if "mixup" in augment:
        clips = MixedClips(clips, seed=0, num_classes=3)
    alone, helped = loader_of(clips, seed), loader_of(clips, seed, num_workers=2)
    for epoch in (0, 1, 5):
        for loader in (alone, helped):
            loader.batch_sampler.set_epoch(epoch)
        for one, other in zip(alone, helped, strict=True):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)


# --- prefetch --------------------------------------------------------------------------------------------------------


def test_prefetch_gives_the_same_batches(clips):
    loader = loader_of(clips, 3)
    for one, other in zip(loader, prefetch(loader), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert list(prefetch([])) == []


def test_prefetch_is_one_batch_ahead():
    made, wanted = [], threading.Event()

    def batches():
        for number in range(5):
            made.append(number)
            if number == 2:
                wanted.set()
            yield number

    ahead = prefetch(batches())
    assert made == []  # nothing is read before it is asked for
    assert next(ahead) == 0
    assert next(ahead) == 1
    assert wanted.wait(10)  # the one after is made without being asked for
    time.sleep(0.05)
    assert made == [0, 1, 2]  # but no more than that: memory stays flat
    assert list(ahead) == [2, 3, 4]


def test_prefetch_raises_when_the_batch_is_due():
    def batches():
        yield 0
        raise OSError("disk gone")

    ahead = prefetch(batches())
    assert next(ahead) == 0
    with pytest.raises(OSError, match="disk gone"):
        next(ahead)


def test_prefetch_ends_its_thread_when_left_early(clips):
    for batch in prefetch(loader_of(clips, 3)):
        assert len(batch["index"]) == 4
        break
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("prefetch") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
