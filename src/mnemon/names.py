"""Names of concepts."""

import re

from mnemon.errors import MnemonError

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
NAME_RULE = "use 1 to 40 lower-case letters, digits, '_' or '-', starting with a letter, for example 'rex'."


def check_name(name: str) -> str:
    """`name`, if it may name a concept.

    Raises:
        MnemonError: it is no safe identifier.
    """
    if not NAME.fullmatch(name):
        raise MnemonError(f"'{name}' cannot name a concept: {NAME_RULE}")
    return name
