"""Own data in Python: datasets, loaders, arrays and Pillow images."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
)
from torch.utils.data import WeightedRandomSampler as Weighted

from automl_ext.data.images import ImageData, load_images, split_images
from automl_ext.training.errors import UserError

IMAGES = torch.arange(12 * 3 * 4 * 5).remainder(251).to(torch.uint8).view(12, 3, 4, 5)
LABELS = torch.arange(12) % 2


class Endless:
    """A sampler for training without epochs."""

    def __iter__(self):
        return itertools.cycle(range(12))


class Items(Dataset):
    def __init__(self, items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


class Lengthless(Dataset):
    def __getitem__(self, i):
        return IMAGES[i], LABELS[i]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(IMAGES, LABELS, strict=True))


def pairs(images=IMAGES, labels=LABELS):
    return list(zip(images, labels.tolist(), strict=True))


SOURCES = {
    "tensors": lambda: Items(pairs()),
    "floats": lambda: Items(pairs(IMAGES / 255)),
    "arrays, channels last": lambda: Items(pairs(IMAGES.permute(0, 2, 3, 1).numpy())),
    "tensor dataset": lambda: TensorDataset(IMAGES, LABELS),
    "stream": Stream,
    "loader": lambda: DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5),
    "shuffling loader": lambda: DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5, shuffle=True, drop_last=True),
    "loader of a stream": lambda: DataLoader(Stream(), batch_size=5),
    "images and labels": lambda: (IMAGES, LABELS),
    "NumPy": lambda: (IMAGES.permute(0, 2, 3, 1).numpy() / 255.0, LABELS.numpy().astype(np.int32)),
    "lists": lambda: (list(IMAGES), LABELS.tolist()),
    "image data": lambda: ImageData("x", IMAGES, LABELS, ("0", "1")),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sources_give_the_same_images(name):
    data = load_images(SOURCES[name]())
    assert torch.equal(data.images, IMAGES)
    assert torch.equal(data.labels, LABELS)
    assert data.classes == ("0", "1")
    assert data.name == load_images((IMAGES, LABELS)).name
    assert data.name.startswith("own:")


def test_name_depends_on_the_content():
    other = IMAGES.clone()
    other[3, 0, 0, 0] += 1
    names = {load_images(data).name for data in ((IMAGES, LABELS), (other, LABELS), (IMAGES, 1 - LABELS))}
    assert len(names) == 3


def test_pillow_images_of_mixed_sizes_and_modes():
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    items = [(image.new("L" if i % 3 else "RGBA", (4 + i, 5), 10), i % 2) for i in range(12)]
    with pytest.raises(UserError, match=r"Items: the images have 12 sizes .* --image-size"):
        load_images(Items(items))
    data = load_images(Items(items), image_size="5x6")
    assert data.images.shape == (12, 3, 5, 6)
    assert data.images[1].unique().tolist() == [10]
    with pytest.raises(UserError, match=r"DataLoader: .*; pass its dataset instead"):
        load_images(DataLoader(Items(items)), image_size=5)
    gray = load_images(([picture.convert("L") for picture, _ in items], LABELS.tolist()), image_size=5)
    assert gray.images.shape == (12, 1, 5, 5)


def test_test_part_class_names_and_subset():
    train, test = Items(pairs(), ["cat", "dog"]), Items(pairs()[:4], ["cat", "dog"])
    data = load_images((train, DataLoader(test)))
    assert data.classes == ("cat", "dog")
    assert torch.equal(data.test_images, IMAGES[:4])
    assert split_images(data).test.labels.tolist() == LABELS[:4].tolist()
    assert load_images(Subset(train, range(10))).classes == ("cat", "dog")
    assert len(load_images(Items(pairs()), subset=10).images) == 10


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "data: expected a Dataset or DataLoader of .*, got 7"),
        ({"images": IMAGES}, "data: expected a Dataset"),
        ((IMAGES, LABELS[:5]), "labels: expected one per image, got 5 for 12 images"),
        ((IMAGES, LABELS.float()), "labels: expected integers, got float32"),
        ((IMAGES.long(), LABELS), "images is int64, expected uint8 or floats in"),
        ((IMAGES.float(), LABELS), r"images has floats from 0.0 to 250.0, expected floats in \[0, 1\], not normalized"),
        ((IMAGES[:, :2], LABELS), "either the second or the last axis must be 1 or 3"),
        ((IMAGES, LABELS - 1), "labels: expected integers from 0 to K − 1 for K classes, got -1"),
        ((IMAGES, LABELS * 99), "labels: expected integers from 0 to K − 1 for K classes, got 99"),
        ((IMAGES, LABELS * 2), "class '1' has 0 images, at least 5 are needed"),
        ((IMAGES, LABELS + 1), "class '0' has 0 images, at least 5 are needed; labels count from 0"),
        (Items(pairs(), ["cat"]), "labels: expected integers from 0 to K − 1 for K classes, got 1"),
        (Items(list(IMAGES)), r"Items: item 0: expected a pair \(image, label\), got Tensor"),
        (Items([(IMAGES[0], "cat")]), "Items: item 0: label: expected integers, got <U3"),
        (Items([("cat.png", 0)]), "Items: item 0: expected a tensor, an array or a Pillow image, got str"),
        (Items([]), "Items: expected images, got none"),
        (Items(pairs(), ["cat", "dog", "cat"]), r"classes: expected a name of its own .*: \['cat'\]"),
        (Lengthless(), "Lengthless: expected a Dataset with __len__, or an IterableDataset"),
        (DataLoader(Lengthless()), r"DataLoader: object of type 'Lengthless' has no len\(\); pass its dataset instead"),
        (DataLoader(Items(list(IMAGES))), "DataLoader: expected batches"),
        (
            DataLoader(TensorDataset(IMAGES, LABELS), sampler=Weighted([1.0] * 12, 40)),
            "DataLoader: its WeightedRandomSampler repeats images; pass its dataset and class_weights",
        ),
        (DataLoader(TensorDataset(IMAGES, LABELS), sampler=Endless()), "DataLoader: its Endless repeats images"),
        (
            DataLoader(TensorDataset(IMAGES, LABELS), batch_sampler=[[0, 1], [1, 2]]),
            "DataLoader: its list repeats images",
        ),
        (DataLoader(Items([(IMAGES[0], 0), (IMAGES[0, :, :2], 1)]), batch_size=2), "pass its dataset and --image-size"),
    ],
)
def test_unsuitable_data_are_refused_in_one_line(data, message):
    with pytest.raises(UserError, match=message) as caught:
        load_images(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [SubsetRandomSampler, list])
def test_a_loader_that_shuffles_a_part_gives_the_part_in_the_order_of_the_dataset(kind):
    chosen = [7, 2, 9, 4, 11, 0, 5, 6, 1, 8]
    pairs = TensorDataset(IMAGES, LABELS)
    batches = BatchSampler(kind(chosen), 3, drop_last=False)
    for loader in (DataLoader(pairs, batch_size=3, sampler=kind(chosen)), DataLoader(pairs, batch_sampler=batches)):
        data = load_images(loader)
        assert torch.equal(data.images, IMAGES[sorted(chosen)])
        assert torch.equal(data.labels, LABELS[sorted(chosen)])
