"""A trained ensemble as one network, and the weights of its members."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automl_ext.nas.export.export import read_weights
from automl_ext.nas.export.run_facts import check_shape
from automl_ext.nas.spaces import registry as spaces
from automl_ext.nas.spaces.space import Space
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import read_object, short
from automl_ext.training.files.weights import write_tensors
from automl_ext.training.run import MEMBERS


class Ensemble(nn.Module):
    """An average of networks: log(Σₘ votesₘ·softmax(networkₘ(x)) / Σ votes).

    Maps [N, channels, H, W] to log-probabilities [N, classes].

    Args:
        votes: the weight of each network, an int of at least 1.

    Raises:
        ValueError: there is no network, or ``votes`` does not fit the networks.
    """

    log_weights: Tensor

    def __init__(self, networks: Sequence[nn.Module], votes: Sequence[int]) -> None:
        super().__init__()
        if len(networks) != len(votes) or not networks or min(votes) < 1:
            raise ValueError(f"votes: expected at least 1 for each of {len(networks)} networks, got {list(votes)}")
        self.networks = nn.ModuleList(networks)
        self.register_buffer("log_weights", (torch.tensor(votes) / sum(votes)).log())

    def forward(self, x: Tensor) -> Tensor:
        log_p = torch.stack([torch.log_softmax(network(x), -1) for network in self.networks])
        return torch.logsumexp(log_p + self.log_weights[:, None, None], 0)


def save_member(out: Path, number: int, weights: dict[str, Tensor]) -> None:
    """Write the weights of member ``number`` into the folder ``members``."""
    path = out / MEMBERS / f"{number}.pt"
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, weights)


def load_ensemble(out: str | Path, space: Space[Any] | None = None, trust: Iterable[str] = ()) -> Ensemble:
    """Load the ensemble that a run of ``automl-ext ensemble`` selected, in evaluation mode on the CPU.

    Images must be normalized in the same way as those of the training, by
    :func:`automl_ext.data.images.split_images`.

    Args:
        out: the run directory.
        space: the search space; by default the one that the result names.
        trust: Python modules that the result may name (``space``); they are imported.

    Raises:
        UserError: ``out`` is not a finished run of an ensemble, or a file is missing, damaged or of another network.
    """
    out = Path(out)
    networks, chosen = [], []
    if not (out / "result.json").is_file():
        raise UserError(f"{out}: expected a finished run of an ensemble, with result.json")
    try:
        result = read_object(out / "result.json")
        space = space or spaces.stored_space(result["space"], trust, out / "result.json")
        for number, votes in enumerate(result["greedy"]["votes"]):
            if votes:
                genotype = space.parse(result["members"][number]["genotype"])
                network = space.build(genotype, **check_shape(result["network"]))
                network.load_state_dict(read_weights(out, network, number))
                networks.append(network)
                chosen.append(votes)
        return Ensemble(networks, chosen).eval()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        raise UserError(f"{out}: expected a finished run of an ensemble: {short(error)}") from None
