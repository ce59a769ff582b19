"""A LoRA or an embedding trained elsewhere becomes a concept of a library."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.export.account import Account, listed
from mnemon.export.cloneofsimo import is_cloneofsimo, read_cloneofsimo
from mnemon.export.factors import SAME
from mnemon.export.foreign_layers import read_deltas
from mnemon.export.foreign_tokens import read_tokens
from mnemon.export.selection import compose_branches
from mnemon.export.triggers import Trigger, trigger_of
from mnemon.export.usable import check_usable
from mnemon.export.weight_file import read_weights
from mnemon.files import file_sha256
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base
from mnemon.names import check_name, check_noun

OTHER_METHOD = "Import it into a library of another method, such as 'stamina' or 'lora'."
MOST_COMPOSED = 8  # of each kind


@dataclass(frozen=True)
class ImportedAdapter:
    """The contents of adapter files, by the layers of a base.

    Attributes:
        deltas: by target module.
        tokens: text encoder -> (vectors, width); None without an embedding.
        accounts: of each file, where each of its tensors went.
        trigger: the words that prompt the concept, from a file's header.
    """

    deltas: Mapping[str, Delta]
    tokens: Mapping[str, Tensor] | None
    accounts: tuple[Account, ...]
    trigger: Trigger | None

    @property
    def skipped(self) -> tuple[str, ...]:
        """Keys of the files that are not in here."""
        return tuple(key for account in self.accounts for key in account.left)

    @property
    def sources(self) -> list[dict[str, str]]:
        """Path and sha256 of each file."""
        paths = [account.file.path for account in self.accounts]
        return [{"source": str(path), "sha256": file_sha256(path)} for path in paths]


def read_adapter(paths: Sequence[Path], base: Base, partial: bool = False) -> ImportedAdapter:
    """Read one LoRA, one embedding, or one of each, also in one file.

    Args:
        partial: skip what cannot be imported.

    Raises:
        MnemonError: a file cannot be read, was made for another base, or holds something that cannot be imported; or
            one file is given twice.
    """
    deltas: dict[str, Delta] = {}
    tokens: Mapping[str, Tensor] | None = None
    accounts: list[Account] = []
    for path in paths:
        account = Account(read_weights(path))
        _check_new(account, accounts)
        file_deltas, file_tokens = _contents(account, base)
        account.close(base, partial)
        if (file_deltas and deltas) or (file_tokens and tokens):
            raise MnemonError(f"'{path}' is the second file of its kind: give one LoRA, one embedding, or one of each.")
        deltas, tokens = file_deltas or deltas, file_tokens or tokens
        accounts.append(account)
    triggers = [trigger for account in accounts if (trigger := trigger_of(account.file.header))]
    return ImportedAdapter(deltas, tokens, tuple(accounts), triggers[0] if triggers else None)


def _check_new(account: Account, earlier: Sequence[Account]) -> None:
    for other in earlier:
        paths = other.file.path, account.file.path
        if paths[0].stat().st_size == paths[1].stat().st_size and file_sha256(paths[0]) == file_sha256(paths[1]):
            raise MnemonError(f"'{paths[0]}' and '{paths[1]}' are the same file: give it once.")


def as_concept(
    adapter: ImportedAdapter,
    base: Base,
    method: Method,
    name: str,
    class_noun: str | None = None,
    trigger: str | None = None,
) -> TrainedConcept:
    """The adapter as the concept `name` of a library with this method.

    A LoRA without an embedding is prompted by ordinary words: `<name>` then stands for `trigger`, for the trigger in
    the file's header, or for the name's words. Methods that use the class noun add it.

    Raises:
        MnemonError: the method's way of composing would alter or drop the adapter, or nothing could be sampled with it.
    """
    tokens = adapter.tokens
    facts: dict[str, Any] = {"imported": True}
    if tokens is None:
        words = trigger or (adapter.trigger.words if adapter.trigger else re.sub("[-_]", " ", name))
        if class_noun and words.lower().endswith(f" {class_noun.lower()}"):
            words = words[: -len(class_noun)].strip()  # the method adds it after the token
        tokens = base.phrase_vectors(words)
        facts["words"] = words
    elif trigger:
        raise MnemonError("A trigger is for a LoRA without an embedding; here the embedding itself is the trigger.")
    learned = TrainedConcept(check_name(name), check_noun(class_noun), adapter.deltas, tokens, facts)
    _check_composed(base, method, learned)
    check_usable(base, method, learned)
    return learned


def _contents(account: Account, base: Base) -> tuple[dict[str, Delta], Mapping[str, Tensor] | None]:
    """Changes by target module and vectors by text encoder; every key of the file is in the account afterwards."""
    if is_cloneofsimo(account.file):
        deltas, tokens = read_cloneofsimo(account, base)
        account.leave(account.open, "tensors of another format than cloneofsimo's, which numbers its layers")
        return deltas, tokens
    tokens = read_tokens(account, base)
    return read_deltas(account, base), tokens


def _check_composed(base: Base, method: Method, learned: TrainedConcept) -> None:
    """Refuses a method that, composing this concept alone, does not give its deltas as they are: a few of each kind,
    since a method may form the whole matrix of every layer."""
    wider = [target for target in learned.deltas if target not in base.target_modules()]
    if method.per_prompt and wider:
        raise MnemonError(
            f"The method '{method.name}' changes weights from prompt to prompt, in the text layers only; "
            f"this concept changes {len(wider)} others, such as {listed(wider)}. {OTHER_METHOD}"
        )
    some = replace(learned, deltas=_some_of_each_kind(base, learned.deltas))
    try:
        branches = compose_branches(method, base, [some])
    except (KeyError, AttributeError, ValueError, RuntimeError):
        branches = []
    if len(branches) != 1 or any(_differs(delta, branches[0].get(key)) for key, delta in some.deltas.items()):
        raise MnemonError(
            f"The method '{method.name}' composes concepts in a way of its own, which leaves out or alters a change "
            f"that it did not learn itself. {OTHER_METHOD}"
        )


def _some_of_each_kind(base: Base, deltas: Mapping[str, Delta]) -> dict[str, Delta]:
    """The smallest of each class, among the target modules and elsewhere, in the file's order."""
    own = base.target_modules()
    kinds: dict[tuple[type[Delta], bool], list[str]] = {}
    for target in sorted(deltas, key=lambda target: math.prod(deltas[target].shape)):
        kinds.setdefault((type(deltas[target]), target in own), []).append(target)
    chosen = {target for targets in kinds.values() for target in targets[:MOST_COMPOSED]}
    return {target: delta for target, delta in deltas.items() if target in chosen}


def _differs(delta: Delta, composed: Delta | None) -> bool:
    matrix = delta.matrix()
    if composed is None:
        return bool(matrix.any())
    return bool((composed.matrix().to(matrix.device) - matrix).norm() > SAME * matrix.norm())
