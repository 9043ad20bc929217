"""Ensembles: the greedy selection compared with brute force, and complete runs."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from compare_runs import same

from automl_ext.data.images import load_images, split_images
from automl_ext.nas.ensembles.ensemble import EnsembleConfig, ensemble, without_validation
from automl_ext.nas.ensembles.network import Ensemble, load_ensemble
from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.training.batches import train_and_valid
from automl_ext.training.ensembles.selection import greedy_selection, likelihoods, log_loss
from automl_ext.training.errors import UserError
from automl_ext.training.files.weights import read_tensors, write_tensors

GENOTYPE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
TINY = EnsembleConfig(genotype=GENOTYPE, restarts=2, random_cells=1, subset=300, channels=4, epochs=2)


def loss_of(likelihood: torch.Tensor, votes: list[int]) -> float:
    weights = torch.tensor(votes, dtype=torch.float64) / sum(votes)
    return -(weights @ likelihood).log().mean().item()


def drawn(networks: int = 5, images: int = 40) -> torch.Tensor:
    """Draw likelihoods in [networks, images] that differ strongly between images."""
    torch.manual_seed(0)
    return torch.rand(networks, images, dtype=torch.float64) ** 2 * 0.98 + 0.01


def test_log_loss() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    assert log_loss(probabilities, labels) == pytest.approx(-(math.log(0.5) + math.log(0.2)) / 2)
    both = torch.stack([probabilities, probabilities.flip(-1)])
    assert likelihoods(both, labels).tolist() == [[0.5, 0.2], [0.25, 0.2]]
    assert math.isfinite(log_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))), (
        "a wrong prediction with probability 1 gives a large, finite loss"
    )


def test_greedy_selection_equals_brute_force_per_round() -> None:
    likelihood = drawn()
    votes = greedy_selection(likelihood, 4)
    chosen = [0] * 5
    best = (math.inf, chosen)
    for _ in range(4):
        options = [[n + (i == k) for i, n in enumerate(chosen)] for k in range(5)]
        chosen = min(options, key=lambda option: loss_of(likelihood, option))
        best = min(best, (loss_of(likelihood, chosen), chosen), key=lambda pair: pair[0])
    assert votes == best[1]


def test_greedy_selection_approaches_the_best_weights() -> None:
    """With many votes it is a conditional-gradient search, which is as good as a grid of weights."""
    likelihood = drawn(3)
    grid = [w for w in itertools.product(range(21), repeat=3) if sum(w) == 20]
    best = min(loss_of(likelihood, list(w)) for w in grid)
    assert loss_of(likelihood, greedy_selection(likelihood, 200)) <= best + 1e-3


def test_greedy_selection_is_never_worse_than_the_best_single_network() -> None:
    likelihood = drawn()
    likelihood[2] = 0.999  # no other network can improve this one
    assert greedy_selection(likelihood, 20) == [0, 0, 1, 0, 0], "the smallest of equal averages"
    assert greedy_selection(likelihood, 1) == [0, 0, 1, 0, 0]
    assert greedy_selection(torch.full((3, 4), 0.5), 5) == [1, 0, 0]


def test_complementary_networks_are_selected_and_a_useless_one_is_not() -> None:
    likelihood = torch.tensor([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1]])
    assert greedy_selection(likelihood, 10) == [1, 1, 0]


@pytest.mark.parametrize(
    ("likelihood", "rounds", "message"),
    [
        (torch.rand(3), 5, "expected .networks, images., got shape"),
        (torch.rand(0, 3), 5, "expected .networks, images., got shape"),
        (torch.rand(2, 3), 0, "rounds: expected at least 1, got 0"),
        (torch.tensor([[0.5, math.nan]]), 5, "expected numbers in"),
        (torch.tensor([[-0.5, 0.5]]), 5, "expected numbers in"),
    ],
)
def test_greedy_selection_rejects_bad_arguments(likelihood: torch.Tensor, rounds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        greedy_selection(likelihood, rounds)


def test_members_are_not_trained_on_validation_images() -> None:
    splits = split_images(load_images("digits", subset=300))
    images = train_and_valid(without_validation(splits)).images
    assert torch.equal(images, splits.train.images)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ensemble") / "run"
    ensemble(TINY, out)
    return out


def test_result(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    members = result["members"]
    assert [m["genotype"] for m in members[:2]] == [GENOTYPE] * 2
    NASBench201().parse(members[2]["genotype"])
    assert len({m["seed"] for m in members}) == 3
    assert members[0]["test_log_loss"] != members[1]["test_log_loss"], "restarts differ"
    best = min(range(3), key=lambda i: members[i]["valid_log_loss"])
    assert result["best_single"]["votes"] == [int(i == best) for i in range(3)]
    assert result["best_single"]["test_log_loss"] == members[best]["test_log_loss"]
    assert result["average"]["votes"] == [1, 1, 1]
    assert 1 <= sum(result["greedy"]["votes"]) <= TINY.rounds
    assert result["greedy"]["valid_log_loss"] <= result["best_single"]["valid_log_loss"]
    # Jensen: the log of a mean is at least the mean of the logs
    assert result["average"]["test_log_loss"] <= sum(m["test_log_loss"] for m in members) / 3
    assert all(0 <= result[name]["test_accuracy"] <= 1 for name in ("greedy", "average", "best_single"))


def test_auxiliary_heads_are_not_part_of_a_loaded_ensemble(tmp_path: Path) -> None:
    ensemble(EnsembleConfig(space="darts", random_cells=1, subset=300, channels=2, epochs=1, auxiliary=0.4), tmp_path)
    assert load_ensemble(tmp_path)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_loaded_ensemble_gives_the_tested_probabilities(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    test = split_images(load_images("digits", subset=300)).test
    network = load_ensemble(finished)
    with torch.no_grad():
        probabilities = network(test.images).exp()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(len(test.labels)))
    assert log_loss(probabilities.double(), test.labels) == pytest.approx(result["greedy"]["test_log_loss"], rel=1e-5)


def test_votes_weight_probabilities_not_logits() -> None:
    class Constant(torch.nn.Module):
        def __init__(self, p: float) -> None:
            super().__init__()
            self.logits = torch.tensor([p, 1 - p]).log()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logits.expand(len(x), 2) + 5

    mixed = Ensemble([Constant(0.9), Constant(0.1)], [3, 1])(torch.zeros(4, 1, 2, 2))
    torch.testing.assert_close(mixed.exp()[:, 0], torch.full((4,), 0.7))
    with pytest.raises(ValueError, match="votes: expected at least 1 for each of 1 networks"):
        Ensemble([Constant(0.5)], [0])


def test_loading_a_folder_without_an_ensemble_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a finished run of an ensemble"):
        load_ensemble(tmp_path)


def test_damaged_or_foreign_members_are_rejected(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    chosen = [i for i, votes in enumerate(json.loads((run / "result.json").read_text())["greedy"]["votes"]) if votes]
    path = run / f"members/{chosen[0]}.pt"
    intact, weights = path.read_bytes(), read_tensors(path)
    first = next(name for name, value in weights.items() if value.ndim > 1)
    place = intact.index(weights[first].numpy().tobytes())
    flipped = intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :]
    for data in (flipped, intact[:-100], b""):
        path.write_bytes(data)
        with pytest.raises(UserError, match=rf"members/{chosen[0]}\.pt is damaged"):
            load_ensemble(run)
    for changed in (weights | {first: torch.zeros(1)}, {k: v for k, v in weights.items() if k != first}, [1]):
        write_tensors(path, changed)
        with pytest.raises(
            UserError, match=rf"members/{chosen[0]}\.pt (is of another|does not contain the state of a) network"
        ):
            load_ensemble(run)
    torch.save(weights, path)  # files of earlier versions have no checksum
    load_ensemble(run)
    for content in ("[" * 100_000, "[]", "{}", '{"greedy": {"votes": [1]}}'):
        (run / "result.json").write_text(content)
        with pytest.raises(UserError):
            load_ensemble(run)


def test_resume_equals_uninterrupted_run(finished: Path, tmp_path: Path) -> None:
    """Parts of one and of two of the six epochs: they end within a training, and between two."""
    stops = 0
    while ensemble(TINY, tmp_path / "run", resume="auto", stop_after=1 + stops % 2) is None:
        stops += 1
        torch.rand(stops)  # the run must not depend on the global generator
    assert stops == 3
    same(*(json.loads((out / "result.json").read_text()) for out in (finished, tmp_path / "run")))


def test_a_run_from_the_checkpoint_of_another_one_has_its_weights(tmp_path: Path) -> None:
    assert ensemble(TINY, tmp_path / "first", stop_after=3) is None
    newest = max((tmp_path / "first/checkpoints").iterdir())
    assert ensemble(TINY, tmp_path / "second", resume=str(newest)) is not None
    assert load_ensemble(tmp_path / "second")(torch.zeros(1, 1, 8, 8)).isfinite().all()
    assert {path.name for path in (tmp_path / "second/members").iterdir()} == {"0.pt", "1.pt", "2.pt"}


def test_missing_and_bad_members_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected --genotype, --members or --random-cells"):
        ensemble(EnsembleConfig(), tmp_path / "run")
    with pytest.raises(UserError, match="NAS-Bench-201 cell"):
        ensemble(EnsembleConfig(members=("|sep_conv_3x3~0|",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
