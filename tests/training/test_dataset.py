"""Order and augmentation of an epoch: a function of seed and epoch, of nothing else."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from osteofusion.data.cache import RadiographCache
from osteofusion.data.radiograph import RadiographPreprocessing
from osteofusion.data.transforms import Augmentation, Augmenter
from osteofusion.training.dataset import EpochSampler, RadiographDataset

N = 23


def epoch(sampler, number):
    sampler.set_epoch(number)
    return list(sampler)


@given(
    n=st.integers(1, 50),
    seed=st.integers(0, 2**32 - 1),
    number=st.integers(0, 500),
    replicas=st.integers(1, 5),
    weighted=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_processes_partition_the_epoch(n, seed, number, replicas, weighted):
    weights = np.arange(1.0, n + 1) if weighted else None
    ranks = [
        epoch(EpochSampler(weights, n, seed, num_replicas=replicas, rank=rank), number)
        for rank in range(replicas)
    ]
    assert len({len(rank) for rank in ranks}) == 1  # nobody waits for another
    drawn = [pair for step in zip(*ranks, strict=True) for pair in step]
    alone = epoch(EpochSampler(weights, n, seed), number)
    assert [row for row, _ in drawn[:n]] == [row for row, _ in alone]
    assert len(drawn) - n < replicas
    if not weighted:
        assert sorted(row for row, _ in alone) == list(range(n))


def test_seed_and_epoch_change_order_and_augmentation():
    def orders(pairs):
        return [row for row, _ in pairs], [seed for _, seed in pairs]

    reference = epoch(EpochSampler(None, N, seed=3), 0)
    assert epoch(EpochSampler(None, N, seed=3), 0) == reference
    for other in (epoch(EpochSampler(None, N, seed=4), 0), epoch(EpochSampler(None, N, seed=3), 1)):
        rows, seeds = orders(other)
        assert rows != orders(reference)[0]
        assert seeds != orders(reference)[1]


def test_an_epoch_does_not_depend_on_the_ones_before():
    walked = EpochSampler(None, N, seed=3)
    for number in range(4):
        last = epoch(walked, number)
    assert epoch(EpochSampler(None, N, seed=3), 3) == last


def test_weights_even_out_classes():
    codes = np.array([0] * 90 + [1] * 10)
    weights = 1.0 / np.bincount(codes)[codes]
    sampler = EpochSampler(weights, len(codes), seed=0)
    drawn = [codes[row] for number in range(50) for row, _ in epoch(sampler, number)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.03)  # 5000 draws, sd 0.007


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    images = []
    for i in range(N):
        path = folder / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (40, 40), dtype=np.uint8)).save(path)
        images.append((path, hashlib.sha256(path.read_bytes()).hexdigest()))
    clinical = rng.normal(size=(N, 3))
    clinical[4] = np.nan
    clinical[5, 0] = np.nan
    return RadiographDataset(
        images,
        clinical,
        labels=np.arange(N) % 2,
        t_scores=np.linspace(-4, 1, N),
        index=np.arange(100, 100 + N),
        cache=RadiographCache(folder / "cache", RadiographPreprocessing(32)),
        augmenter=Augmenter(Augmentation()),
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(dataset, workers):
    def batches(number):
        sampler = EpochSampler(None, N, seed=1)
        sampler.set_epoch(2)
        return list(DataLoader(dataset, batch_size=5, sampler=sampler, num_workers=number))

    for one, other in zip(batches(0), batches(workers), strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value.nan_to_num(), other[key].nan_to_num()), key


def test_an_item_is_what_it_says(dataset):
    item = dataset[4]
    assert item["image"].shape == (1, 32, 32)
    assert item["image"].dtype == torch.uint8
    assert item["clinical"].dtype == torch.float64
    assert item["present"].tolist() == [True, False]  # a row without any value
    assert dataset[5]["present"].tolist() == [True, True]
    assert int(item["index"]) == 104
    assert int(item["label"]) == 0


def test_only_seeded_requests_are_augmented(dataset):
    plain, again = dataset[7]["image"], dataset[7]["image"]
    assert torch.equal(plain, again)
    one, same, other = (dataset[7, seed]["image"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain)


def test_without_a_cache_there_is_no_image(dataset):
    bare = RadiographDataset(
        dataset.images,
        *(x.numpy() for x in (dataset.clinical, dataset.labels, dataset.t_scores, dataset.index)),
        None,
    )
    assert "image" not in bare[0]
    assert bare[0]["present"].tolist() == [False, True]
