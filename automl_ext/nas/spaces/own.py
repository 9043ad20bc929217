"""Search spaces of the user: ``--space MODULE:CLASS``."""

from __future__ import annotations

from random import Random
from typing import Any

from automl_ext.nas.spaces.space import Space
from automl_ext.training.errors import UserError
from automl_ext.training.files.reading import short
from automl_ext.training.user_code import import_object, raised

METHODS = ("parse", "random", "mutate", "legal", "encode", "decode", "build", "build_supernet", "draw")
DRAWN = 3  # genotypes on which the methods are tried


def own_space(name: str) -> Space[Any]:
    """Make a space of the user and check that it follows :class:`~automl_ext.nas.spaces.space.Space`.

    Args:
        name: ``MODULE:CLASS``; the class is called without arguments.

    Raises:
        UserError: the class cannot be imported or called, or it is not a space. The message names the wrong part.
    """
    where = f"--space {name}"
    kind = import_object(name, "--space")
    if not isinstance(kind, type):
        raise UserError(f"{where}: expected a class, got {short(kind)}")
    call = f"{kind.__name__}()"
    try:
        space = kind()
        call = "num_choices"
        missing = [member for member in (*METHODS, "num_choices", "kinds") if not hasattr(space, member)]
        if missing:
            hint = "; without a supernet, let it raise NotImplementedError" * ("build_supernet" in missing)
            raise UserError(f"{where}: expected a search space; it lacks {', '.join(missing)}{hint}")
        _check_decisions(space, where)
        rng = Random(0)
        for _ in range(DRAWN):
            call = "random()"
            genotype = space.random(rng)
            call = "a method for the genotype " + short(str(genotype))
            _check_genotype(space, genotype, where)
            call = "mutate()"
            _check_genotype(space, space.mutate(genotype, rng), where)
    except (KeyboardInterrupt, UserError):
        raise
    except BaseException as error:
        raise UserError(f"{where}: {call} {raised(error)}") from None
    return space


def _check_decisions(space: Any, where: str) -> None:
    choices, kinds = list(space.num_choices), list(space.kinds)
    if not choices or not all(type(n) is int and n >= 1 for n in choices):
        raise UserError(f"{where}: num_choices: expected ints of at least 1, got {short(space.num_choices)}")
    if max(choices) == 1:
        raise UserError(
            f"{where}: num_choices: expected a decision with several choices, got {short(space.num_choices)}"
        )
    if len(kinds) != len(choices) or not set(kinds) <= {"operation", "input"}:
        raise UserError(
            f'{where}: kinds: expected "operation" or "input" for each of the {len(choices)} decisions of num_choices, '
            f"got {short(space.kinds)}"
        )


def _check_genotype(space: Any, genotype: Any, where: str) -> None:
    """Check that ``str`` and ``encode`` describe a genotype completely."""
    hash(genotype)
    text, indices = str(genotype), tuple(space.encode(genotype))
    within = len(indices) == len(space.num_choices) and all(
        0 <= index < n for index, n in zip(indices, space.num_choices, strict=True)
    )
    if not within:
        raise UserError(f"{where}: encode() returned {short(indices)}, expected indices below {space.num_choices}")
    if space.decode(indices) != genotype:
        raise UserError(f"{where}: decode(encode(genotype)) is not the genotype {short(text)}")
    if space.parse(text) != genotype:
        raise UserError(f"{where}: parse(str(genotype)) is not the genotype {short(text)}")
    for decision, n in enumerate(space.num_choices):
        legal = tuple(space.legal(genotype, decision))
        if indices[decision] in legal or not all(0 <= choice < n for choice in legal):
            raise UserError(
                f"{where}: legal(genotype, {decision}) returned {short(legal)}, expected choices below {n} without the "
                f"present one, {indices[decision]}"
            )
