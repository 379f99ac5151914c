"""The order of clips: each once an epoch, a function of (seed, epoch), with little padding."""

import numpy as np
import pytest
import torch

from audioclf.sampling import LengthBucketSampler


def epoch_of(lengths, batch_size, seed, epoch=0, **options) -> list[list[int]]:
    sampler = LengthBucketSampler(lengths, batch_size, seed, **options)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler) == sampler.num_windows(epoch)
    if "classes" not in options:
        assert {key[1] for batch in batches for key in batch} <= {epoch}
    return [[index for index, _ in batch] for batch in batches]


def flat(batches) -> list[int]:
    return [index for batch in batches for index in batch]


def padding_share(lengths, batches) -> float:
    padded = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    return 1 - sum(lengths) / padded


@pytest.mark.parametrize("num_clips", [1, 2, 7, 8, 9, 64, 401, 1000])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("seed", [0, None])
def test_every_clip_once(num_clips, batch_size, seed):
    lengths = np.random.default_rng(1).integers(1, 500, num_clips)
    for epoch in range(3):
        batches = epoch_of(lengths, batch_size, seed, epoch)
        assert sorted(flat(batches)) == list(range(num_clips))
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert len(batches[-1]) == (num_clips - 1) % batch_size + 1


def test_order_is_a_function_of_seed_and_epoch():
    lengths = np.random.default_rng(1).integers(1, 500, 100)
    sampler = LengthBucketSampler(lengths, 8, 5)
    drawn = {}
    for epoch in (0, 1, 2, 1, 0):  # back again, as after a resume
        sampler.set_epoch(epoch)
        np.random.seed(epoch + len(drawn))  # noqa: NPY002 - the global streams must not matter
        torch.manual_seed(len(drawn))
        batches = list(sampler)
        assert batches == list(sampler)
        assert drawn.setdefault(epoch, batches) == batches
        assert [[i for i, _ in batch] for batch in batches] == epoch_of(lengths, 8, 5, epoch)
    orders = [flat(epoch_of(lengths, 8, seed, epoch)) for seed in (5, 6) for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 8


@pytest.mark.parametrize("num_clips", [64, 400, 1000])
def test_batches_are_mixed_anew_each_epoch(num_clips):
    """Not the same batches in another order: a clip meets new neighbours, in a small data set too."""
    lengths = np.random.default_rng(1).permutation(480_000)[:num_clips]
    first, second = ({frozenset(batch) for batch in epoch_of(lengths, 8, 0, epoch)} for epoch in range(2))
    assert len(first & second) < 0.2 * len(first)


@pytest.mark.parametrize("seed", [0, 1, None])
def test_little_padding(seed):
    """1 to 30 s, 2,000 clips, batches of 8; without buckets it would be more than 40 %."""
    lengths = np.random.default_rng(2).integers(16_000, 480_000, 2000)
    for epoch in range(3):
        assert padding_share(lengths, epoch_of(lengths, 8, seed, epoch)) < 0.05
    rest = np.random.default_rng(0).permutation(2000).reshape(-1, 8)
    assert padding_share(lengths, rest) > 0.4


class TestBalanced:
    CLASSES = np.repeat([0, 1, 2, 5], [70, 20, 7, 3])

    @pytest.mark.parametrize("max_samples", [np.inf, 1500])
    def test_each_class_equally_often_and_each_clip_of_it(self, max_samples):
        lengths = np.random.default_rng(1).integers(1, 500, 100)
        for num_clips, quotas in ((100, {25}), (98, {24, 25})):
            classes = self.CLASSES[:num_clips]
            for epoch in range(5):
                order = flat(epoch_of(lengths[:num_clips], 8, 0, epoch, classes=classes, max_samples=max_samples))
                assert len(order) == num_clips
                drawn = np.bincount(order, minlength=num_clips)
                for label in np.unique(classes):
                    own = drawn[classes == label]
                    assert own.sum() in quotas
                    assert own.max() - own.min() <= 1

    def test_the_others_come_in_other_epochs(self):
        seen = {i for epoch in range(12) for i in flat(epoch_of([1] * 100, 8, 0, epoch, classes=self.CLASSES))}
        assert len(seen) == 100

    def test_function_of_seed_and_epoch_from_any_batch(self):
        lengths = np.random.default_rng(1).integers(1, 500, 100)
        sampler = LengthBucketSampler(lengths, 8, 5, classes=self.CLASSES)
        sampler.set_epoch(3)
        batches = list(sampler)
        for start in range(len(batches)):
            again = LengthBucketSampler(lengths, 8, 5, classes=self.CLASSES)
            again.set_epoch(3, start=start)
            assert list(again) == batches[start:]
        assert flat(epoch_of(lengths, 8, 5, 3, classes=self.CLASSES)) != flat(
            epoch_of(lengths, 8, 5, 4, classes=self.CLASSES)
        )

    def test_a_clip_that_comes_again_has_another_key(self):
        """As the key seeds what is drawn for a clip."""
        keys = []
        sampler = LengthBucketSampler([1] * 100, 8, 0, classes=self.CLASSES)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            keys += [key for batch in sampler for key in batch]
        assert len(set(keys)) == len(keys) == 300

    def test_padding_stays_small(self):
        lengths = np.random.default_rng(2).integers(16_000, 480_000, 2000)
        classes = np.random.default_rng(3).choice(4, 2000, p=[0.7, 0.2, 0.07, 0.03])
        batches = epoch_of(lengths, 8, 0, classes=classes)
        order = flat(batches)
        padded = sum(len(batch) * lengths[batch].max() for batch in batches)
        assert 1 - lengths[order].sum() / padded < 0.05


def test_long_batches_do_not_come_first():
    """The order of batches is random: length says nothing about the time of a batch."""
    lengths = np.random.default_rng(2).integers(1, 1000, 400)
    correlations = []
    for epoch in range(50):
        means = [np.mean(lengths[batch]) for batch in epoch_of(lengths, 8, 0, epoch)]
        correlations.append(np.corrcoef(np.arange(len(means)), means)[0, 1])
    assert abs(np.mean(correlations)) < 0.1


def test_equal_lengths_are_a_random_permutation():
    """Every clip comes at every place equally often: chi-square of 12 clips at 12 places, 1,200 epochs."""
    counts = np.zeros((12, 12))
    for epoch in range(1200):
        for place, index in enumerate(flat(epoch_of([100] * 12, 4, 0, epoch))):
            counts[index, place] += 1
    chi_square = ((counts - 100) ** 2 / 100).sum()
    assert chi_square < 180  # 121 degrees of freedom: 99.96 % of random orders are below


def test_short_batch_is_not_always_the_same_clips():
    lengths = np.random.default_rng(1).integers(1, 500, 19)
    last = {i for epoch in range(30) for i in epoch_of(lengths, 8, 0, epoch)[-1]}
    assert len(last) > 15


def test_evaluation_order_is_fixed_and_longest_first():
    lengths = np.random.default_rng(1).integers(1, 500, 100)
    order = flat(epoch_of(lengths, 8, None))
    assert all(flat(epoch_of(lengths, 8, None, epoch)) == order for epoch in range(3))
    assert sorted(lengths[order], reverse=True) == lengths[order].tolist()


@pytest.mark.parametrize("num_clips", [1, 7, 64, 401, 1000])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("seed", [0, None])
def test_batches_by_total_length(num_clips, batch_size, seed):
    """Every clip once; no batch above either bound."""
    lengths = np.random.default_rng(1).integers(1, 500, num_clips)
    for epoch in range(3):
        batches = epoch_of(lengths, batch_size, seed, epoch, max_samples=1500)
        assert sorted(flat(batches)) == list(range(num_clips))
        assert max(len(batch) for batch in batches) <= batch_size
        assert max(len(batch) * lengths[batch].max() for batch in batches) <= 1500


def test_batches_by_total_length_are_full():
    """Another clip would not have fitted: of 2,000 clips of 1 to 30 s the batches of 120 s use nine tenths."""
    lengths = np.random.default_rng(2).integers(16_000, 480_000, 2000)
    for seed in (0, None):
        batches = epoch_of(lengths, 1000, seed, max_samples=120 * 16_000)
        computed = [len(batch) * lengths[batch].max() for batch in batches]
        assert np.mean(computed) > 0.9 * 120 * 16_000
        assert padding_share(lengths, batches) < 0.05
        assert {len(batch) for batch in batches} > {4, 5, 6, 8, 10, 20}  # long clips few, short ones many


def test_a_bound_that_does_not_bind_changes_nothing():
    lengths = np.random.default_rng(1).integers(1, 500, 100)
    for seed in (0, None):
        assert epoch_of(lengths, 8, seed, max_samples=8 * 500) == epoch_of(lengths, 8, seed)
