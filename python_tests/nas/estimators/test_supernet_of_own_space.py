"""``--evaluator supernet`` with a space of the user."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from paths import ROOT
from test_lower_fidelity import SPLITS

from automl_ext.nas.estimators.weight_sharing import UniformSupernet
from automl_ext.nas.spaces.own import own_space
from automl_ext.nas.training.training_options import TrainingConfig

FLAGS = ["--evaluator", "supernet", "--subset", "100", "--channels", "2", "--epochs", "1", "--evaluations", "3"]
# Both α of shape (2, 4): which decision belongs to which edge is unknown.
PAIRS = """

class Pairs(ChainSupernet):
    def __init__(self, *args):
        super().__init__(*args)
        self.alphas = nn.ParameterList(nn.Parameter(alpha.repeat(2, 1)) for alpha in list(self.alphas)[:2])


class PairSpace(ChainSpace):
    def build_supernet(self, *, in_channels, num_classes, channels, cells, form):
        return Pairs(in_channels, num_classes, channels, form)
"""


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module of docs/development/extending-nas.md."""
    page = (ROOT / "docs/development/extending-nas.md").read_text()
    module = page.partition("`chain.py`:\n\n```python\n")[2].partition("```")[0]
    (tmp_path / "chain.py").write_text(module + PAIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("chain", None)


def test_each_alpha_of_one_edge_belongs_to_one_decision(chain: None) -> None:
    space = own_space("chain:ChainSpace")
    job = UniformSupernet(TrainingConfig(channels=2), space, SPLITS, torch.device("cpu"))
    choices = job.choices(space.decode([3, 0, 2, 1]))
    assert [choice.active for choice in choices] == [[[3]], [[0]], [[2]], [[1]]]
    assert [choice.weights.argmax().item() for choice in choices] == [3, 0, 2, 1]


def test_a_supernet_of_several_cells_scores_genotypes(
    chain: None, command: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, error = command("search", "random", "--space", "chain:ChainSpace", *FLAGS, "--out", "run")
    assert code == 0, error
    assert re.fullmatch(r"\w+-\w+-\w+-\w+", json.loads(Path("run/result.json").read_text())["genotype"])


def test_other_shapes_are_refused_in_one_line(chain: None, command: Callable[..., tuple[int, str, str]]) -> None:
    code, _, error = command("search", "random", "--space", "chain:PairSpace", *FLAGS, "--out", "run")
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: --evaluator supernet: expected the method Pairs.choices(genotype), one α of shape")
    assert "got the decisions (4, 4, 4, 4) and α of shapes [(2, 4), (2, 4)]" in error
    assert not Path("run").exists()
