"""Masks of candidates: an operation that is masked is never chosen and gets no gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from automl_ext.nas.spaces.nasbench201 import NASBench201
from automl_ext.nas.spaces.supernet import Choice
from automl_ext.nas.supernets import darts, entmax_gdas, gdas
from automl_ext.nas.supernets.candidates import decode, masked, without_none

SAMPLERS: dict[str, Callable[..., list[Choice]]] = {
    "gdas": gdas.sample,
    "entmax-gdas": entmax_gdas.sample,
    "darts": lambda alphas, tau, rng: darts.mix(alphas),
}
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


@every_sampler
@pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
def test_masked_none_is_never_chosen_and_gets_no_gradient(name: str, tau: float) -> None:
    torch.manual_seed(0)
    net = NASBench201().build_supernet(in_channels=1, num_classes=10, channels=4, cells=1, form="darts")
    with torch.no_grad():
        net.alphas[0][:, 0] = 5.0  # "none" would be chosen nearly always
    allowed = without_none(net)
    assert allowed[0].tolist() == [[False, True, True, True, True]] * 6
    for seed in range(30):
        (choice,) = SAMPLERS[name](masked(net.alphas, allowed), tau, torch.Generator().manual_seed(seed))
        assert all(0 not in active and active for active in choice.active)
        assert not choice.weights[:, 0].any()
        (gradient,) = torch.autograd.grad(choice.weights.square()[:, 3].sum(), net.alphas[0])
        assert gradient.isfinite().all()
        assert not gradient[:, 0].any()
    derived = masked([net.alphas[0].detach()], allowed)
    assert "none" not in decode(net, derived).operations
    assert net.alphas[0][0, 0] == 5.0, "decoding restores α"
    assert masked(net.alphas, None)[0] is net.alphas[0]
