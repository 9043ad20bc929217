"""Parsing beyond tyro: one-line errors of configurations, and values of options that are read in advance."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from automl_ext.training.config import apply_toml, to_dict
from automl_ext.training.errors import UserError
from automl_ext.training.user_code import check_trusted, own_names
from automl_ext.training.words import OURS, our_name
from automl_ext_cli.options import parse_options


def parse(form: Any, kinds: Sequence[type], default: Callable[[Any], Any], prog: str, args: Sequence[str]) -> Any:
    """Parse the options of a command with a configuration.

    Args:
        form: the dataclass to parse; it has ``options`` with ``trust``.
        kinds: the dataclasses in it: the first is that of ``options``, the last that of the configuration.
        default: returns the default of ``form`` with given settings: --config and --preset set them.
        prog: the command, for messages.

    Raises:
        UserError: a value is wrong, a file is missing, or a file names a module that --trust does not name.
    """
    options, settings = kinds[0], kinds[-1]
    check_words(kinds, args)
    toml = option_value("--config", args)
    try:  # the dataclasses check their values and raise ValueError
        defaults = named_values(options, default_of(settings), args)
        if toml is not None:
            defaults = apply_toml(defaults, toml)
        named = list(own_names(to_dict(defaults)))
        parsed = parse_options(form, prog, args, default=default(defaults), registry=user_errors())
    except (ValueError, OverflowError) as error:  # an int with hundreds of digits overflows
        raise UserError(str(error)) from None
    check_trusted(named, parsed.options.trust, str(toml))
    return parsed


def check_words(kinds: Sequence[type], args: Sequence[str]) -> None:
    """Raise UserError for the flag of another package that has a different name here."""
    flags = [arg.partition("=")[0] for arg in args if arg.startswith("--")]
    if any(flag[2:].replace("-", "_") in OURS for flag in flags):
        configs = [default_of(kinds[-1])]
        configs += inner_configs(configs[0])
        known = {field.name for form in kinds[:-1] for field in dataclasses.fields(form)}
        for config in configs:
            known |= {name for name, value in vars(config).items() if not dataclasses.is_dataclass(value)}
        for flag in flags:
            if ours := our_name(flag[2:].replace("-", "_"), known):
                raise UserError(f"{flag}: unknown option; did you mean --{ours.replace('_', '-')}?")


def default_of(settings: type) -> Any:
    """Return the default of a configuration's class. The default of an agent has the options of all extras."""
    config = settings()
    if not hasattr(config, "extras"):
        return config
    from automl_ext.rl.extras import Extras

    return dataclasses.replace(config, extras=Extras())


def with_extras(settings: type) -> type:
    """Return a configuration's class with the type of the default that :func:`default_of` returns, for completion."""
    if "extras" not in settings.__dataclass_fields__:  # type: ignore[attr-defined]
        return settings
    from automl_ext.rl.extras import Extras

    class WithExtras(settings):
        __annotations__ = {"extras": Annotated[Extras, tyro.conf.arg(name="Extras", prefix_name=False)]}
        extras = dataclasses.field(default_factory=Extras)

    return dataclasses.dataclass(WithExtras)


def inner_configs(config: Any) -> Iterator[Any]:
    """Yield the dataclasses in a dataclass."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield value
            yield from inner_configs(value)


def named_values(options: Any, defaults: Any, args: Sequence[str]) -> Any:
    """Return a configuration with the values of --preset, if the command has that option."""
    name = option_value("--preset", args)
    if name is None or not hasattr(options, "presets"):
        return defaults
    return import_module(options.presets).preset(name, defaults)


def user_errors() -> ConstructorRegistry:
    """Return a rule for tyro that turns a ValueError of a dataclass's checks into a UserError, printed as one line."""
    registry = ConstructorRegistry()
    asking = False

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal asking
        if asking or not (dataclasses.is_dataclass(info.type) and hasattr(info.type, "__post_init__")):
            return None
        asking = True  # the question below comes here first
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            asking = False
        assert isinstance(spec, StructConstructorSpec)

        @functools.wraps(spec.instantiate, updated=())
        def checked(**values: Any) -> Any:
            try:
                return spec.instantiate(**values)
            except (ValueError, OverflowError) as error:
                raise UserError(str(error)) from None

        return dataclasses.replace(spec, instantiate=checked)

    return registry


def option_value(flag: str, args: Sequence[str]) -> str | None:
    """Return the value of --config or --preset, which set the defaults of the options that tyro parses.

    The last value of a repeated option counts, as for tyro.
    """
    for i in reversed(range(len(args))):
        if args[i] == flag and i + 1 < len(args):
            return args[i + 1]
        if args[i].startswith(f"{flag}="):
            return args[i].removeprefix(f"{flag}=")
    return None
