"""``attn_implementation="entmax15"`` in small random models of transformers equals a composition by the eager code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import automl_ext

transformers = pytest.importorskip("transformers", minversion="5.0")


@pytest.fixture(autouse=True, scope="module")
def registered() -> None:
    automl_ext.ops.attention.register()


def decoder(kind: str, **options: Any) -> nn.Module:
    """Return a small model with grouped queries, rotary positions and a cache."""
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.5,
        pad_token_id=0,
        **options,
    )
    torch.manual_seed(0)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def llama(**options: Any) -> nn.Module:
    return decoder("Llama", **options)


def mistral() -> nn.Module:
    return decoder("Mistral", sliding_window=3)


def bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(config).eval()


def words(padded_left: bool = False) -> dict[str, Tensor]:
    ids = torch.randint(1, 40, (3, 9), generator=torch.Generator().manual_seed(1))
    seen = torch.ones_like(ids)
    seen[1, 6:] = seen[2, 3:] = 0
    if padded_left:
        seen = seen.flip(1)
    return {"input_ids": ids * seen, "attention_mask": seen}


def composed(model: nn.Module, function: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call a function with the model's eager attention, whose softmax is entmax-1.5."""
    model.set_attn_implementation("eager")
    with monkeypatch.context() as patch:
        patch.setattr(nn.functional, "softmax", lambda x, dim, dtype=None: automl_ext.entmax15(x, dim))
        result = function()
    model.set_attn_implementation("entmax15")
    return result


@pytest.mark.parametrize("make", [llama, mistral, bert])
def test_results_and_gradients_with_padding(make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(), words()

    def step() -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        logits = model(**batch).logits[batch["attention_mask"].bool()]
        logits.log_softmax(-1)[:, 3].sum().backward()
        return logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    (expected, expected_grads), (logits, grads) = composed(model, step, monkeypatch), step()
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert grads.keys() == expected_grads.keys()
    largest = max(float(grad.abs().max()) for grad in expected_grads.values())
    for name, grad in expected_grads.items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-3, atol=1e-5 * largest, msg=name)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_generate_with_a_cache(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = llama(), words(padded_left=True)

    def generate(**options: Any) -> Tensor:
        return model.generate(**batch, max_new_tokens=8, do_sample=False, cache_implementation=cache, **options)

    expected = composed(model, lambda: generate(), monkeypatch)
    assert torch.equal(generate(), expected)
    model.set_attn_implementation("sdpa")
    assert not torch.equal(generate(), expected)  # softmax writes other words


def test_what_softmax_only_has_is_refused_by_name() -> None:
    attend = transformers.AttentionInterface()["entmax15"]
    q = torch.randn(1, 2, 3, 4)
    for name in ("softcap", "s_aux", "position_bias"):
        with pytest.raises(ValueError, match=f"attn_implementation='entmax15': {name}, .*: expected None"):
            attend(nn.Module(), q, q, q, None, **{name: torch.ones(1)})
    model = llama(attention_dropout=0.1)
    model.set_attn_implementation("entmax15")
    with pytest.raises(ValueError, match=r"dropout of the weights: expected 0, got 0\.1; set attention_dropout"):
        model.train()(**words())
    with pytest.raises(ValueError, match="output_attentions"):
        model.eval()(**words(), output_attentions=True)
