"""The report on classes in a result: confusion matrix, baseline, weights; and validation during a training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from automl_ext.data.images import Split, Splits
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.supernet import batch_accuracy
from automl_ext.nas.training.network_pictures import plot_confusion
from automl_ext.nas.training.network_training import NetworkTraining
from automl_ext.nas.training.result import class_report, confusion_matrix
from automl_ext.nas.training.retrain import RetrainConfig, retrain
from automl_ext.nas.training.training_options import class_weights
from automl_ext.training.errors import UserError

SPACE = NASBench201()
CELL = SPACE.decode([3, 1, 0, 3, 2, 1])
CONFIG = RetrainConfig(genotype=str(CELL), channels=2, epochs=2, batch_size=8)


class Fixed(nn.Module):
    """Predicts the class that an image's pixels hold."""

    def forward(self, images: Tensor) -> Tensor:
        return F.one_hot(images.flatten(1)[:, 0].long(), 3).float()


def images_of(predicted: list[int]) -> Tensor:
    return torch.tensor(predicted).float().view(-1, 1, 1, 1)


def test_confusion_matrix_and_report() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    network = Fixed().train()
    counts = confusion_matrix(network, Split(images_of([0, 0, 2, 1, 0, 1, 1]), labels), 3)
    assert network.training
    assert counts.tolist() == [[2, 0, 1], [1, 3, 0], [0, 0, 0]]
    report = class_report(counts, torch.tensor([0, 0, 1, 2]), ["a", "b", "c"])
    assert report == {
        "test_accuracy": 5 / 7,
        "majority_accuracy": 3 / 7,
        "class_accuracy": {"a": 2 / 3, "b": 3 / 4, "c": None},
        "confusion": [[2, 0, 1], [1, 3, 0], [0, 0, 0]],
    }


@pytest.mark.parametrize("size", [2, 10, 30])
def test_picture_of_the_confusion_matrix(size: int, tmp_path: Path) -> None:
    counts = torch.eye(size, dtype=torch.int64) * 9 + 1
    result = class_report(counts, torch.arange(size), [f"class $ {k}" for k in range(size)])
    assert plot_confusion(result, tmp_path) == [tmp_path / "confusion.png"]
    assert (tmp_path / "confusion.png").stat().st_size > 3000
    assert plot_confusion({"genotype": "x"}, tmp_path / "none") == []
    for damaged in ({"confusion": [[1, 2]]}, {"confusion": [["x"]]}, {"class_accuracy": {}}, {"confusion": 3}):
        with pytest.raises(UserError, match=r"plot: result.json: (confusion|class_accuracy): expected"):
            plot_confusion(result | damaged, tmp_path)


def test_balanced_weights_give_every_class_the_same_total() -> None:
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = class_weights("balanced", labels, 3)
    assert weights is not None
    totals = torch.bincount(labels) * weights
    torch.testing.assert_close(totals, torch.full((3,), 10 / 3))
    assert class_weights(None, labels, 3) is None
    assert class_weights((1.0, 2.0, 0.5), labels, 3).tolist() == [1, 2, 0.5]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="--class-weights: expected one number for each of the 3 classes, got 2"):
        class_weights((1.0, 2.0), labels, 3)


def splits() -> Splits:
    generator = torch.Generator().manual_seed(0)
    part = Split(torch.randn(24, 1, 8, 8, generator=generator), torch.arange(24) % 3)
    return Splits(part, part, part, 3, 1, (8, 8), ("a", "b", "c"), (0.0,), (1.0,))


def test_weights_enter_the_loss_and_validation_is_logged() -> None:
    device, batch = torch.device("cpu"), splits().train
    plain = NetworkTraining(CONFIG, SPACE, CELL, splits(), device)
    weighted = NetworkTraining(replace(CONFIG, class_weights=(1.0, 5.0, 1.0)), SPACE, CELL, splits(), device, batch)
    logits = weighted.network(batch.images)
    expected = F.cross_entropy(logits, batch.labels, torch.tensor([1.0, 5.0, 1.0]))
    torch.testing.assert_close(weighted.loss_and_logits(batch.images, batch.labels, batch.labels, 1.0)[0], expected)
    assert plain.run_epoch().keys() == {"loss", "lr", "train_accuracy"}
    scalars = weighted.run_epoch()
    weighted.network.eval()
    assert scalars["valid_accuracy"] == (weighted.network(batch.images).argmax(-1) == batch.labels).double().mean()
    for wrong in ("equal", (), (1.0, 0.0), (1.0, float("nan"))):
        with pytest.raises(ValueError, match="class_weights: expected balanced, or one number above 0 per class"):
            replace(CONFIG, class_weights=wrong)  # type: ignore[arg-type]


def test_validate_holds_the_validation_images_out(tmp_path: Path) -> None:
    labels = torch.arange(100) % 2
    images = (labels * 200).to(torch.uint8).view(-1, 1, 1, 1).expand(100, 1, 8, 8).contiguous()
    images[labels == 0, :, ::2] = 90
    result = retrain(replace(CONFIG, validate=True, class_weights="balanced"), tmp_path / "run", data=(images, labels))
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert result is not None
    assert all(0 <= row["retrain_valid_accuracy"] <= 1 for row in rows)
    assert sum(map(sum, result["confusion"])) == 20
    assert result["majority_accuracy"] == 0.5
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["data"].startswith("own:")
    with pytest.raises(UserError, match="data"):  # resumed with other data
        retrain(replace(CONFIG, validate=True), tmp_path / "run", resume="auto", data=(images, 1 - labels))


def test_batch_accuracy_leaves_the_running_statistics_alone() -> None:
    torch.manual_seed(0)
    net = SPACE.build_supernet(in_channels=1, num_classes=3, channels=2, cells=1, form="darts").eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    batch = splits().train
    share = batch_accuracy(net, batch.images, batch.labels, net.argmax())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training
    net.train()
    assert share == (net(batch.images, *net.argmax()).argmax(-1) == batch.labels).double().mean()


def test_command_takes_images_of_mixed_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    from automl_ext.cli import main

    for i in range(20):
        folder = tmp_path / "images" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        image.new(("L", "RGB")[i % 3 == 0], (8 + i % 4, 9), 250 * (i % 2)).save(folder / f"{i}.png")
    out = str(tmp_path / "run")
    args = ["retrain", "--genotype", str(CELL), "--data", f"folder:{tmp_path / 'images'}", "--out", out]
    args += ["--channels", "2", "--epochs", "1", "--class-weights", "1", "2"]
    assert main(args) == 2
    assert "4 sizes (height×width): 9×8 (5 images)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*args, "--image-size", "10x8", "--validate"]) == 0
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["network"]["image_size"] == [10, 8]
    assert result["network"]["shape"]["in_channels"] == 3
    assert list(result["class_accuracy"]) == ["a", "b"]
    assert main(["plot", out]) == 0
    assert (tmp_path / "run/confusion.png").stat().st_size > 3000
