"""Optional parts of the final training (cutout, CutMix, drop-path, auxiliary head), and its exact resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import torch
from compare_runs import same
from torch import nn

from automl_ext.cli import main
from automl_ext.data.images import Split, Splits
from automl_ext.nas.costs import count_parameters
from automl_ext.nas.data import prepare
from automl_ext.nas.ensembles.ensemble import EnsembleConfig, ensemble
from automl_ext.nas.spaces.darts_space import Darts
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.training.batches import cutmix, cutout, mixed_cross_entropy
from automl_ext.nas.training.compare import CompareConfig, compare
from automl_ext.nas.training.network_training import DropPath, NetworkTraining
from automl_ext.nas.training.retrain import RetrainConfig, retrain
from automl_ext.training.errors import UserError

GENOTYPE = Darts().random(Random(0))
CONFIG = RetrainConfig(
    space="darts",
    genotype=str(GENOTYPE),
    channels=2,
    epochs=3,
    batch_size=8,
    cutout=3,
    cutmix=0.5,
    drop_path=0.3,
    auxiliary=0.4,
)


def test_all_seeds_have_the_same_subset_and_split_and_the_help_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    (_, first), (_, second) = (prepare(RetrainConfig(subset=100, seed=seed)) for seed in (0, 1))
    for part in ("train", "valid", "test"):
        assert torch.equal(getattr(first, part).images, getattr(second, part).images)
    with pytest.raises(SystemExit):
        main(["retrain", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "the subset and the split of the images are the same for every seed" in shown


def splits() -> Splits:
    part = Split(torch.randn(24, 1, 8, 8), torch.arange(24) % 3)
    return Splits(part, part, part, 3, 1, (8, 8), ("a", "b", "c"), (0.0,), (1.0,))


def training(config: RetrainConfig) -> NetworkTraining:
    torch.manual_seed(0)
    return NetworkTraining(config, Darts(), GENOTYPE, splits(), torch.device("cpu"))


def test_bfloat16_is_only_less_exact() -> None:
    exact, rough = (training(replace(CONFIG, drop_path=0.0, bfloat16=b)) for b in (False, True))
    batch = exact.split
    losses = [job.loss_and_logits(batch.images, batch.labels, batch.labels, 1.0)[0].item() for job in (exact, rough)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    rough.run_epoch()
    assert all(p.dtype == torch.float32 for p in rough.network.parameters())


def test_cutout_zeros_one_square_inside_the_image() -> None:
    images = torch.ones(500, 2, 7, 9)
    cut = cutout(images, 4, torch.Generator().manual_seed(0)) == 0
    assert torch.equal(cut[:, 0], cut[:, 1])
    rows, columns = cut[:, 0].any(2), cut[:, 0].any(1)
    assert torch.equal(cut[:, 0], rows[:, :, None] & columns[:, None])
    for lines, length in ((rows, 7), (columns, 9)):
        # Centers are uniform, so squares may cross the border: then 2 or 3 of their 4 lines are inside.
        assert lines.sum(1).unique().tolist() == [2, 3, 4]
        share = lines.double().mean(0)
        assert torch.allclose(share[1:-2], torch.tensor(4 / length).double(), atol=0.08)
    assert torch.equal(images, torch.ones_like(images))
    assert cutout(images, 0, torch.Generator()) is images


def test_cutmix_mixes_labels_as_images() -> None:
    """Image i has the value i everywhere, so that an image shows which parts of which images it has."""
    images, labels = torch.arange(6.0)[:, None, None, None].expand(6, 2, 8, 10), torch.arange(6)
    generator, shares = torch.Generator().manual_seed(0), []
    for _ in range(2000):
        mixed, others, share = cutmix(images, labels, 0.9, generator)
        own = mixed == images
        assert (own | (mixed == others[:, None, None, None])).all()
        assert sorted(others.tolist()) == labels.tolist()
        if share < 1:
            moved = others != labels
            assert torch.allclose(own[moved].double().mean((1, 2, 3)), torch.tensor(share).double())
            changed = ~own[moved][:, 0].all(0) if moved.any() else torch.zeros(8, 10, dtype=torch.bool)
            assert torch.equal(changed, changed.any(1)[:, None] & changed.any(0))  # a rectangle
        shares.append(share)
    mixed = torch.tensor(shares)
    assert 0.07 < (mixed == 1).double().mean() < 0.2  # not mixed, or the rectangle has no pixel
    assert 0.6 < mixed[mixed < 1].mean() < 0.75  # 1/2, but for the parts outside of the images
    assert cutmix(images, labels, 0.0, generator) == (images, labels, 1.0)


def test_the_loss_of_mixed_images_is_that_of_soft_labels() -> None:
    logits, labels, others = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 1, 0, 2, 0])
    soft = 0.7 * nn.functional.one_hot(labels, 3) + 0.3 * nn.functional.one_hot(others, 3)
    expected = nn.functional.cross_entropy(logits, soft, label_smoothing=0.1)
    torch.testing.assert_close(mixed_cross_entropy(logits, labels, others, 0.7, label_smoothing=0.1), expected)


def test_drop_path_drops_whole_images_and_keeps_the_mean() -> None:
    network = nn.Module()
    network.operation = nn.Identity()
    network.paths = lambda: iter([network.operation])  # type: ignore[assignment]
    drop = DropPath(network, torch.Generator().manual_seed(0))
    x = torch.ones(4000, 2, 3, 3)
    assert torch.equal(network.operation(x), x)
    drop.probability = 0.2
    drop.draw(5000, slice(500, 4500), x.device)  # the second of several processes has a part of the batch
    y = network.operation(x)
    values = y.flatten(1)
    assert torch.equal(values, values[:, :1].expand_as(values))
    assert y.unique().tolist() == pytest.approx([0.0, 1.25])
    assert y.mean().item() == pytest.approx(1.0, abs=0.03)
    network.operation.eval()
    assert torch.equal(network.operation(x), x)


def test_paths_are_all_operations_except_identities() -> None:
    network = Darts().build(GENOTYPE, in_channels=1, num_classes=3, channels=2, cells=1)
    assert len(list(network.paths())) == sum(
        edge.operation != "skip_connect" or (cell in (1, 3) and edge.start < 2)
        for cell in range(5)
        for node in ((GENOTYPE.reduction or ()) if cell in (1, 3) else GENOTYPE.normal)
        for edge in node
    )
    nb201 = NASBench201().decode([3, 1, 0, 4, 2, 1])
    network = NASBench201().build(nb201, in_channels=1, num_classes=3, channels=2, cells=2)
    assert len(list(network.paths())) == 3 * 2 * 3


@pytest.mark.parametrize(
    ("space", "genotype"), [("convnet", "plain-s1-1-1-1"), ("nb201", str(NASBench201().decode([1] * 6)))]
)
def test_drop_path_without_an_operation_to_drop_is_refused(space: str, genotype: str, tmp_path: Path) -> None:
    config = RetrainConfig(space=space, genotype=genotype, subset=60, channels=2, epochs=1, drop_path=0.2)
    with pytest.raises(UserError, match=r"^drop_path: .* has no operation that can be dropped, so expected 0"):
        retrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_drop_path_probability_rises_with_the_epoch() -> None:
    job = training(CONFIG)
    seen = []
    assert job.drop_path is not None
    for _ in range(3):
        job.run_epoch()
        seen.append(job.drop_path.probability)
    assert seen == pytest.approx([0.0, 0.1, 0.2])


@pytest.mark.slow
def test_each_option_changes_the_training_and_is_off_by_default() -> None:
    plain = replace(CONFIG, cutout=0, cutmix=0.0, drop_path=0.0, auxiliary=0.0)
    losses = {}
    for name in ("plain", "cutout", "cutmix", "drop_path", "auxiliary"):
        job = training(plain if name == "plain" else replace(plain, **{name: getattr(CONFIG, name)}))
        losses[name] = [job.run_epoch()["loss"] for _ in range(2)]
    assert len({values[1] for values in losses.values()}) == 5
    assert losses["drop_path"][0] == losses["plain"][0]  # the drop probability is 0 in the first epoch
    defaults = RetrainConfig()
    assert (defaults.cutout, defaults.cutmix, defaults.drop_path, defaults.auxiliary) == (0, 0.0, 0.0, 0.0)


def test_auxiliary_loss_is_weighted() -> None:
    job = training(replace(CONFIG, drop_path=0.0))
    batch = splits().train
    logits, auxiliary = job.network(batch.images)
    expected = nn.functional.cross_entropy(logits, batch.labels) + 0.4 * nn.functional.cross_entropy(
        auxiliary, batch.labels
    )
    torch.testing.assert_close(job.loss_and_logits(batch.images, batch.labels, batch.labels, 1.0)[0], expected)
    assert job.network.auxiliary_cell == 3  # of 5 cells: at 2/3 of the depth
    assert job.network.eval()(batch.images).shape == (24, 3)
    plain = Darts().build(GENOTYPE, in_channels=1, num_classes=3, channels=2, cells=1)
    assert count_parameters(job.network) == sum(p.numel() for p in plain.parameters())


def test_resume_with_every_option_equals_uninterrupted_training(tmp_path: Path) -> None:
    config = replace(CONFIG, subset=60, batch_size=24)
    whole = retrain(config, tmp_path / "whole")
    while (parts := retrain(config, tmp_path / "parts", resume="auto", stop_after=1)) is None:
        torch.manual_seed(1)
        torch.rand(3)
    same(parts, whole)
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(("field", "value"), [("cutmix", 1.1), ("drop_path", 1.0)])
def test_configuration_error_names_the_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}: expected"):
        replace(CONFIG, **{field: value})


def test_unsupported_options_of_a_space_are_rejected() -> None:
    space = NASBench201()
    with pytest.raises(UserError, match="--auxiliary: networks of this space have no auxiliary head"):
        NetworkTraining(replace(CONFIG, drop_path=0.0), space, space.decode([3] * 6), splits(), torch.device("cpu"))
    with pytest.raises(UserError, match="--drop-path: networks of this space have no method paths"):
        DropPath(nn.Linear(1, 1), torch.Generator())


@pytest.mark.parametrize("name", ["cutout", "shift"])
def test_a_change_of_a_whole_image_is_rejected(tmp_path: Path, name: str) -> None:
    config = RetrainConfig(genotype="|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|", epochs=1)
    with pytest.raises(UserError, match=f"{name}: expected less than the side of images of 8 × 8 pixels, got 8"):
        retrain(replace(config, **{name: 8}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rejected_training_leaves_no_run_directory(tmp_path: Path) -> None:
    cell = "|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|"
    for train, config in (
        (retrain, RetrainConfig(genotype=cell, subset=60, auxiliary=0.4)),
        (compare, CompareConfig(random_cells=1, subset=60, auxiliary=0.4)),
        (ensemble, EnsembleConfig(random_cells=1, subset=60, auxiliary=0.4)),
    ):
        with pytest.raises(UserError, match="--auxiliary: networks of this space have no auxiliary head"):
            train(config, tmp_path / "run")  # type: ignore[operator]
        assert not (tmp_path / "run").exists()
