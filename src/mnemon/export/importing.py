"""A LoRA or an embedding trained elsewhere becomes a concept of a library."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mnemon.adapters import Delta, Dense, LowRank
from mnemon.adapters.checks import matrix_shape
from mnemon.errors import MnemonError
from mnemon.export.cloneofsimo import cloneofsimo_factors, cloneofsimo_vectors, is_cloneofsimo, other_keys
from mnemon.export.factors import SAME
from mnemon.export.formats import ENDINGS, alpha_in, target_names, tensors_by_layer, to_diffusers
from mnemon.export.naming import embedding_key, naming_of, split_target
from mnemon.export.selection import compose_branches
from mnemon.export.weight_file import WeightFile, read_weights
from mnemon.files import file_sha256
from mnemon.methods.base import Method, TrainedConcept
from mnemon.models import Base
from mnemon.models.layers import every_layer
from mnemon.names import check_name

MAX_LISTED = 5  # of a long list in an error
OTHER_METHOD = "Import it into a library of another method, such as 'stamina' or 'lora'."
ONE_ENCODER = ("emb_params", "string_to_param.*", "*")


@dataclass(frozen=True)
class ImportedAdapter:
    """The contents of adapter files, by the layers of a base.

    Attributes:
        deltas: by target module.
        tokens: text encoder -> (vectors, width); None without an embedding.
        skipped: keys of the files that are not in here.
        trigger: the words that prompt the concept, from a file's header.
        sources: path and sha256 of each file.
    """

    deltas: Mapping[str, Delta]
    tokens: Mapping[str, Tensor] | None
    skipped: tuple[str, ...]
    trigger: str | None
    sources: tuple[Mapping[str, str], ...]


def read_adapter(paths: Sequence[Path], base: Base, partial: bool = False) -> ImportedAdapter:
    """Read one LoRA, one embedding, or one of each.

    Args:
        partial: skip what cannot be imported.

    Raises:
        MnemonError: a file cannot be read, was made for another base, or holds something that cannot be imported.
    """
    deltas: dict[str, Delta] = {}
    tokens: Mapping[str, Tensor] | None = None
    skipped: list[str] = []
    sources = []
    trigger = None
    for path in paths:
        file = read_weights(path)
        file_deltas, file_tokens, unknown_keys = _contents(file, base)
        if (file_deltas and deltas) or (file_tokens and tokens):
            raise MnemonError(f"'{path}' is the second file of its kind: give one LoRA, one embedding, or one of each.")
        deltas, tokens = file_deltas or deltas, file_tokens or tokens
        skipped += unknown_keys
        if skipped and not partial:
            raise MnemonError(
                f"'{path}' holds {len(skipped)} tensors that cannot be imported into '{base.name}': "
                f"{_listed(skipped)}. Go on without them with --partial; images will differ from the original's."
            )
        trigger = trigger or _trigger(file)
        sources.append({"source": str(path), "sha256": file_sha256(file.path)})
    if not deltas and not tokens:
        raise MnemonError(f"Nothing in {_listed([str(path) for path in paths])} can be imported into '{base.name}'.")
    return ImportedAdapter(deltas, tokens, tuple(skipped), trigger, tuple(sources))


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
        MnemonError: the method's way of composing would alter or drop the adapter.
    """
    tokens = adapter.tokens
    if tokens is None:
        words = trigger or adapter.trigger or re.sub("[-_]", " ", name)
        if class_noun and words.lower().endswith(f" {class_noun.lower()}"):
            words = words[: -len(class_noun)].strip()  # the method adds it after the token
        tokens = base.phrase_vectors(words)
    elif trigger:
        raise MnemonError("A trigger is for a LoRA without an embedding; here the embedding itself is the trigger.")
    learned = TrainedConcept(check_name(name), class_noun, adapter.deltas, tokens, {"imported": True})
    _check_composed(base, method, learned)
    return learned


def _contents(file: WeightFile, base: Base) -> tuple[dict[str, Delta], dict[str, Tensor] | None, list[str]]:
    """Deltas by target module, tokens by text encoder, and keys that cannot be imported."""
    if is_cloneofsimo(file):
        vectors = cloneofsimo_vectors(file)
        tokens = None if vectors is None else _tokens(file, {"emb_params": vectors}, base)
        factors = cloneofsimo_factors(file, base).items()
        return {target: LowRank(up, down) for target, (up, down) in factors}, tokens, other_keys(file)
    if _is_embedding(file, base):
        return {}, _tokens(file, file.tensors, base), []
    deltas, unknown = _deltas(file, base)
    return deltas, None, unknown


def _is_embedding(file: WeightFile, base: Base) -> bool:
    keys = list(file.tensors)
    single = len(keys) == 1 and not any(kind in keys[0] for kind in ("lora", ".diff"))
    return single or not {*ONE_ENCODER, *_embedding_keys(base)}.isdisjoint(keys)


def _embedding_keys(base: Base) -> dict[str, str]:
    """Key of an embedding file -> its text encoder."""
    naming, widths = naming_of(base), base.embedding_statistics()
    return {embedding_key(naming, encoder, widths[encoder][0]): encoder for encoder in widths}


def _tokens(file: WeightFile, tensors: Mapping[str, Tensor], base: Base) -> dict[str, Tensor]:
    keys, widths = _embedding_keys(base), base.embedding_statistics()
    vectors = {keys[key]: tensor for key, tensor in tensors.items() if key in keys}
    if not vectors and len(widths) == 1:
        given = [tensors[key] for key in ONE_ENCODER if key in tensors] or list(tensors.values())
        vectors = {next(iter(widths)): given[0]}
    vectors = {encoder: tensor.reshape(-1, tensor.shape[-1]) for encoder, tensor in vectors.items() if tensor.ndim}
    expected = {encoder: width for encoder, (width, _, _) in widths.items()}
    if {encoder: tensor.shape[1] for encoder, tensor in vectors.items()} != expected:
        held = ", ".join(f"'{key}' {tuple(tensor.shape)}" for key, tensor in tensors.items())
        needed = ", ".join(f"{encoder} {width}" for encoder, width in expected.items())
        raise MnemonError(
            f"The embedding '{file.path}' holds {held}; the base '{base.name}' ({base.family}) reads vectors of the "
            f"widths {needed}: it was made for another family."
        )
    return {encoder: tensor.float() for encoder, tensor in vectors.items()}


def _deltas(file: WeightFile, base: Base) -> tuple[dict[str, Delta], list[str]]:
    naming, layers = naming_of(base), every_layer(base)
    names = target_names(base, naming, layers)
    tensors = to_diffusers(base, file.tensors) if naming.denoiser == "transformer" else file.tensors
    deltas: dict[str, Delta] = {}
    unknown: list[str] = []
    layer_tensors = tensors_by_layer(tensors)
    for name, layer in layer_tensors.items():
        target = names.get(name)
        if target is None or layer.keys() - {"alpha"} not in ({"down", "up"}, {"diff"}):
            other_keys = [kind for kind in layer if kind not in ENDINGS.values()]
            unknown += other_keys + [name] * (len(other_keys) < len(layer))
            continue
        part, path = split_target(naming, target)
        deltas[target] = _delta(layer, file, part, path)
        if deltas[target].shape != matrix_shape(layers[target]):
            raise MnemonError(
                f"'{file.path}' changes '{name}' by a matrix of {deltas[target].shape}; in '{base.name}' "
                f"({base.family}) it is {matrix_shape(layers[target])}: {_other_family(file)}."
            )
    if not deltas:
        raise MnemonError(
            f"None of the {len(layer_tensors)} layers that '{file.path}' names is in '{base.name}' ({base.family}), "
            f"such as {_listed(list(layer_tensors))}: {_other_family(file)}."
        )
    return deltas, unknown


def _delta(layer: Mapping[str, Tensor], file: WeightFile, part: str, path: str) -> Delta:
    if "diff" in layer:
        return Dense(layer["diff"].flatten(1).clone())
    up, down = layer["up"].flatten(1), layer["down"].flatten(1)
    rank = down.shape[0]
    if up.shape[1] != rank:
        raise MnemonError(f"The factors of '{path}' in '{file.path}' do not fit together: the file is broken.")
    alpha = layer["alpha"].item() if "alpha" in layer else alpha_in(file.adapter, part, path, rank)
    return LowRank(up.clone(), down.clone(), alpha / rank)


def _other_family(file: WeightFile) -> str:
    family = file.header.get("modelspec.architecture") or file.header.get("ss_base_model_version")
    return "it was made for another base" + (f"; it says '{family}'" if family else "")


def _trigger(file: WeightFile) -> str | None:
    """The header's trigger phrase, unless it names an embedding such as our `<rex>`."""
    phrase = file.header.get("modelspec.trigger_phrase", "").split(",")[0].strip()
    return phrase if phrase and "<" not in phrase else None


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return ", ".join(f"'{item}'" for item in items[:MAX_LISTED]) + more


def _check_composed(base: Base, method: Method, learned: TrainedConcept) -> None:
    """Refuses a method that, composing this concept alone, does not give its deltas as they are."""
    wider = [target for target in learned.deltas if target not in base.target_modules()]
    if method.per_prompt and wider:
        raise MnemonError(
            f"The method '{method.name}' changes weights from prompt to prompt, in the text layers only; "
            f"this concept changes {len(wider)} others, such as {_listed(wider)}. {OTHER_METHOD}"
        )
    try:
        branches = compose_branches(method, base, [learned])
    except (KeyError, AttributeError, ValueError, RuntimeError):
        branches = []
    if len(branches) != 1 or any(_differs(delta, branches[0].get(key)) for key, delta in learned.deltas.items()):
        raise MnemonError(
            f"The method '{method.name}' composes concepts in a way of its own, which leaves out or alters a change "
            f"that it did not learn itself. {OTHER_METHOD}"
        )


def _differs(delta: Delta, composed: Delta | None) -> bool:
    matrix = delta.matrix()
    if composed is None:
        return bool(matrix.any())
    return bool((composed.matrix().to(matrix.device) - matrix).norm() > SAME * matrix.norm())
