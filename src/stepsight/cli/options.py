"""Settings of a data set on the command line of programs that have no configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from stepsight.errors import UserError

if TYPE_CHECKING:
    from stepsight.data.config import SourceSettings


def with_options(settings: SourceSettings, pairs: Sequence[str]) -> SourceSettings:
    """`settings` with `key=value` of each pair, read as in a configuration file.

    Raises `UserError` for a pair without `=`, an unknown key, and a value of another type.
    """
    import yaml

    from stepsight.config import from_dict

    values = asdict(settings)
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UserError(f"option {pair}: write key=value, such as depth_scale=256.")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"option {pair}: {' '.join(str(error).split())}") from error
    return from_dict({"data": {settings.name: values}}, "options").data[settings.name]
