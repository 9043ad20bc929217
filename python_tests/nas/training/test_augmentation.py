"""Batches, augmentation, accuracy."""

from __future__ import annotations

import torch
from torch import nn

from automl_ext.data.images import Split
from automl_ext.nas.training.batches import accuracy, augment, epoch_batches


def test_batches_contain_every_image_at_most_once() -> None:
    batches = epoch_batches(100, 32, torch.Generator().manual_seed(0))
    assert [len(b) for b in batches] == [32, 32, 32]
    assert len(set(torch.cat(batches).tolist())) == 96
    assert [len(b) for b in epoch_batches(20, 32, torch.Generator())] == [20]
    assert [len(b) for b in epoch_batches(64, 32, torch.Generator())] == [32, 32]


def test_augmentation_shifts_and_repeats_the_border() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    moved = augment(image.expand(300, 1, 4, 4), 1, False, torch.Generator().manual_seed(0))
    padded = nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")[0, 0]
    possible = {tuple(padded[i : i + 4, j : j + 4].flatten().tolist()) for i in range(3) for j in range(3)}
    assert {tuple(x.flatten().tolist()) for x in moved} == possible


def test_flip_mirrors_about_half_of_the_images() -> None:
    image = torch.arange(6.0).reshape(1, 2, 1, 3)
    flipped = augment(image.expand(400, 2, 1, 3), 0, True, torch.Generator().manual_seed(0))
    mirrored = (flipped == image.flip(-1)).all((1, 2, 3))
    assert (mirrored | (flipped == image).all((1, 2, 3))).all()
    assert 150 < mirrored.sum() < 250


def test_no_augmentation_uses_no_random_numbers() -> None:
    rng = torch.Generator().manual_seed(0)
    state = rng.get_state()
    images = torch.randn(2, 1, 4, 4)
    assert augment(images, 0, False, rng) is images
    assert torch.equal(rng.get_state(), state)


def test_accuracy_uses_evaluation_mode_and_restores_the_mode() -> None:
    class Half(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not self.training
            return x.flatten(1)

    images = torch.eye(4)[torch.tensor([0, 1, 2, 3] * 300)].reshape(1200, 4, 1, 1)
    labels = torch.tensor([0, 1, 0, 1] * 300)
    network = Half().train()
    assert accuracy(network, Split(images, labels)) == 0.5
    assert network.training
