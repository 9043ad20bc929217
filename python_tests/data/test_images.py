"""The split of images, subsets, and data specifications."""

import sys

import pytest
import torch
from training_helpers import refused

from automl_ext.data.images import ImageData, draw_stratified, load_images, split_images
from automl_ext.training.errors import UserError


def image_data(counts, *, test_counts=None, channels=1, seed=0):
    """Return random images, ``counts[i]`` of class i."""
    rng = torch.Generator().manual_seed(seed)

    def part(sizes):
        labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        shape = (len(labels), channels, 4, 5)
        return torch.randint(256, shape, generator=rng, dtype=torch.uint8), labels

    classes = tuple("abcdefgh"[: len(counts)])
    test = (None, None) if test_counts is None else part(test_counts)
    return ImageData("made up", *part(counts), classes, *test)


def test_split_is_stratified_and_uses_every_image_once():
    data = image_data([50, 25, 5])
    data.images[:, 0, 0, 0] = torch.arange(80)  # identifies each image
    splits = split_images(data)
    assert (splits.num_classes, splits.in_channels, splits.image_size, splits.classes) == (
        3,
        1,
        (4, 5),
        data.classes,
    )
    sizes = [torch.bincount(part.labels).tolist() for part in (splits.train, splits.valid, splits.test)]
    assert sizes == [[30, 15, 3], [10, 5, 1], [10, 5, 1]]
    marks = torch.cat([part.images[:, 0, 0, 0] for part in (splits.train, splits.valid, splits.test)])
    labels = torch.cat([part.labels for part in (splits.train, splits.valid, splits.test)])
    order = marks.argsort()
    assert len(marks.unique()) == 80
    assert torch.equal(labels[order], data.labels)
    for part in (splits.train, splits.valid, splits.test):
        assert part.images.dtype == torch.float32
        assert part.labels.dtype == torch.int64
        assert part.images.is_contiguous()


def test_split_is_normalized_by_the_training_part():
    data = image_data([40, 40], channels=3)
    data.images[:, 1] //= 4
    data.images[:, 2] = 9  # constant: no division by zero
    splits = split_images(data)
    mean = splits.train.images.double().mean((0, 2, 3))
    std = splits.train.images.double().std((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.tensor([1.0, 1.0, 0.0]).double(), atol=1e-5, rtol=0)
    assert 0 < abs(splits.valid.images[:, 0].mean()) < 0.2


def test_split_depends_only_on_the_data_and_the_seed():
    data = image_data([20, 30])
    torch.manual_seed(1)
    first = split_images(data, seed=3)
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        second = split_images(data, seed=3)
    finally:
        torch.set_num_threads(threads)
    for a, b in [(first.train, second.train), (first.valid, second.valid), (first.test, second.test)]:
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    other = split_images(data, seed=4)
    assert not torch.equal(first.test.images, other.test.images)


def test_parts_are_shuffled():
    labels = split_images(image_data([200, 200])).train.labels
    assert len(labels) == 240
    assert 40 < int(labels[:120].sum()) < 80


def test_an_official_test_part_is_used():
    data = image_data([40, 20], test_counts=[3, 7])
    splits = split_images(data)
    assert torch.equal(splits.test.labels, data.test_labels)
    assert torch.bincount(splits.train.labels).tolist() == [30, 15]
    assert torch.bincount(splits.valid.labels).tolist() == [10, 5]
    raw, normal = data.test_images.double().flatten(), splits.test.images.double().flatten()
    slope = (normal[1:] - normal[0]) / (raw[1:] - raw[0])
    assert slope[slope.isfinite()].std() < 1e-5  # one affine map, in the same order


@pytest.mark.parametrize(
    ("counts", "test_counts", "message"),
    [
        ([5, 4], None, "made up: class 'b' has 4 images, at least 5 are needed"),
        ([5, 0], None, "class 'b' has 0 images"),
        ([4, 3], [1, 1], "class 'b' has 3 training images, at least 4 are needed"),
        ([4, 4], [0, 1], "class 'a' has 0 test images, at least 1 are needed"),
        ([9], None, "at least two classes are needed, found a"),
    ],
)
def test_too_few_images(counts, test_counts, message):
    with pytest.raises(UserError, match=message):
        split_images(image_data(counts, test_counts=test_counts))


def test_the_smallest_data_set_has_every_class_in_every_part():
    for data in (image_data([5, 6, 7]), image_data([4, 5, 6], test_counts=[1, 1, 1])):
        splits = split_images(data)
        for part in (splits.train, splits.valid, splits.test):
            assert torch.bincount(part.labels, minlength=3).min() >= 1


def test_stratified_draw():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)[torch.randperm(100)]
    for count in (1, 10, 33, 99, 100):
        drawn = draw_stratified(labels, count, torch.Generator().manual_seed(0))
        assert len(drawn.unique()) == count
        share = torch.bincount(labels[drawn], minlength=3) - torch.tensor([0.6, 0.3, 0.1]) * count
        assert share.abs().max() < 1
    a, b, c = (draw_stratified(labels, 50, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_digits():
    data = load_images("digits")
    assert data.images.shape == (1797, 1, 8, 8)
    assert (data.images.dtype, data.labels.dtype) == (torch.uint8, torch.int64)
    assert (int(data.images.min()), int(data.images.max())) == (0, 255)
    assert data.classes == tuple("0123456789")
    assert data.test_images is None
    small = load_images("digits", subset=100)
    assert len(small.images) == 100
    assert torch.bincount(small.labels).tolist() == [10] * 10
    assert not torch.equal(small.images, load_images("digits", subset=100, seed=1).images)
    refused("digits", "--subset 1798", "has 1797 images", subset=1798)
    refused("digits", "--subset 49", "at least 5 are needed", subset=49)
    refused("digits", "--subset 0", subset=0)
    refused("digits", "--subset -5", subset=-5)


def test_unknown_specs(tmp_path):
    for spec in ("cifar", "", "digits:x", "folder", "folder:", f"images:{tmp_path}"):
        refused(
            spec,
            f"unknown data {spec!r}",
            "expected digits, fashion-mnist:PATH, cifar10:PATH, cifar100",
        )
    for kind in ("folder", "npz", "fashion-mnist", "cifar10"):
        refused(f"{kind}:{tmp_path}/none", f"{tmp_path}/none does not exist")


@pytest.mark.parametrize(("module", "spec"), [("sklearn.datasets", "digits"), ("PIL", "folder:{}")])
def test_missing_extras_are_named(tmp_path, monkeypatch, module, spec):
    monkeypatch.setitem(sys.modules, module, None)
    refused(spec.format(tmp_path), 'pip install "automl_ext[data]"')
