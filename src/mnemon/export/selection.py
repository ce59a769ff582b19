"""Concepts selected from a library for export, with their change of the weights as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffusers.loaders import TextualInversionLoaderMixin

from mnemon.adapters import Delta
from mnemon.errors import MnemonError
from mnemon.export.naming import DIFFUSERS, FOLDER, Naming, naming_of, placeholder_tokens
from mnemon.library import Library, kept_fusion
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base, Tokens


@dataclass(frozen=True)
class Selection:
    """Concepts of a library, composed by its method as if there were no others, for an export of one kind.

    Attributes:
        naming: what other tools call the parts of the base.
        composed: the concepts whose changes are composed: `learned`, or all where the method keeps one change for all.
        deltas: the composed change by target module.
        tokens: each concept's vectors (vectors, width) by text encoder.
    """

    library: Library
    base: Base
    naming: Naming
    kind: str
    learned: tuple[TrainedConcept, ...]
    composed: tuple[TrainedConcept, ...]
    deltas: Mapping[str, Delta]
    tokens: Mapping[str, Tokens]

    @property
    def names(self) -> list[str]:
        return [concept.name for concept in self.learned]

    @property
    def title(self) -> str:
        return "-".join(self.names)

    def prompt_name(self, name: str) -> str:
        """How a concept stands in a prompt: "<rex> dog"."""
        (class_noun,) = (concept.class_noun for concept in self.learned if concept.name == name)
        return self.library.method.prompt_name(name, class_noun)

    @property
    def expands_tokens(self) -> bool:
        """Whether the family's pipeline loads textual inversions and expands tokens of several vectors."""
        return issubclass(getattr(self.base, "pipeline_class", object), TextualInversionLoaderMixin)

    def trigger(self, name: str) -> str:
        """What to write in a prompt: for diffusers "<rex> dog", or "<rex> <rex>_1 dog" where its pipeline does not
        expand tokens of several vectors; elsewhere "rex dog", since there the embedding file's name is the trigger."""
        words = [name]
        if self.kind in (DIFFUSERS, FOLDER):
            num_vectors = max(len(rows) for rows in self.tokens[name].values())
            words = placeholder_tokens(name, 1 if self.expands_tokens else num_vectors)
        return self.prompt_name(name).replace(f"<{name}>", " ".join(words))


def select(library: Library, base: Base, names: Sequence[str] = (), kind: str = DIFFUSERS) -> Selection:
    """The concepts `names`, by default all, in the order in which they were learned.

    Raises:
        MnemonError: the base is another one, or of a family without names in other tools; a concept is unknown, or
            there is none; or other tools have no format for it: concepts that are combined per prompt, or tokens with
            vectors per layer.
    """
    naming = naming_of(base)
    library.check_base(base)
    known = library.names()
    for name in names:
        if name not in known:
            raise MnemonError(f"{library.path} has no concept '{name}'; it has: {', '.join(known) or 'none yet'}.")
    everything = tuple(library.learned())
    learned = tuple(concept for concept in everything if not names or concept.name in names)
    if not learned:
        raise MnemonError(f"{library.path} has no concept yet: there is nothing to export.")
    tokens = library.method.tokens(learned)
    for name, vectors in tokens.items():
        if any(tensor.ndim != 2 for tensor in vectors.values()):
            raise MnemonError(
                f"The token <{name}> has vectors of its own for every layer of the base. No file of another tool can "
                "hold that: an embedding is one set of vectors for all layers. It can be sampled with mnemon only, "
                "or learned again by a method with ordinary tokens."
            )
    fused = kept_fusion(library) if len(learned) == len(known) else None
    composed = learned if library.method.can_remove else everything
    deltas = fused or _compose(library.method, base, composed)
    return Selection(library, base, naming, kind, learned, composed, deltas, tokens)


def _compose(method: Method, base: Base, concepts: Sequence[TrainedConcept]) -> dict[str, Delta]:
    if method.per_prompt and len(concepts) > 1:
        raise MnemonError(
            f"The method '{method.name}' combines its concepts anew for every prompt, which no file of another "
            "tool can hold: export one concept at a time."
        )
    branches = compose_branches(method, base, concepts)
    if len(branches) != 1:
        raise MnemonError(
            f"The method '{method.name}' draws '{concepts[0].name}' under {len(branches)} changes of the weights at "
            "once, which no file of another tool can hold."
        )
    return branches[0]


def compose_branches(method: Method, base: Base, concepts: Sequence[TrainedConcept]) -> list[dict[str, Delta]]:
    """The changes of the weights under which these concepts are sampled; of a method that works per prompt, those of
    the first concept's prompt."""
    with base.using_tokens(method.tokens(concepts)):
        if not method.per_prompt:
            return [method.compose(base, concepts)]
        return method.branches(base, concepts, method.prompt_name(concepts[0].name, concepts[0].class_noun))
