"""Where every tensor of a file goes: carried into a target module or a token, or left with the reason."""

from collections.abc import Iterable
from dataclasses import dataclass

from mnemon.errors import MnemonError
from mnemon.export.families import family_of
from mnemon.export.formats import LONE_MARK, split
from mnemon.export.weight_file import WeightFile
from mnemon.models import Base

MAX_LISTED = 5  # of a long list in an error
NOT_HERE = "layers that the base does not have"
WHOLE_MODEL = "weights of a whole model"
PARTLY = "Go on without them with --partial; images will differ from the original's."


@dataclass(frozen=True)
class Misfit:
    """The shape (d_out, d_in) of a file's change of a layer, and the layer's own."""

    given: tuple[int, int]
    expected: tuple[int, int]

    @property
    def transposed(self) -> bool:
        return self.given == self.expected[::-1]


class Account:
    """The account of one file. Every key is entered once.

    Attributes:
        carried: key -> target module, or target modules of a fused layer, or text encoder.
        left: key -> why it cannot be imported.
        misfits: layer -> the sizes that differ.
    """

    def __init__(self, file: WeightFile) -> None:
        self.file = file
        self.carried: dict[str, str] = {}
        self.left: dict[str, str] = {}
        self.misfits: dict[str, Misfit] = {}

    def carry(self, keys: Iterable[str], target: str) -> None:
        self._enter(keys, target, self.carried)

    def leave(self, keys: Iterable[str], reason: str) -> None:
        self._enter(keys, reason, self.left)

    @property
    def open(self) -> list[str]:
        """Keys that are in the account nowhere yet."""
        return [key for key in self.file.tensors if key not in self.carried and key not in self.left]

    def _enter(self, keys: Iterable[str], value: str, entries: dict[str, str]) -> None:
        for key in keys:
            assert key in self.file.tensors and key not in self.carried and key not in self.left, key
            entries[key] = value

    def close(self, base: Base, partial: bool) -> None:
        """Settle the account: carried and left are all.

        Raises:
            MnemonError: something does not fit the base, nothing can be imported, or, without `partial`, something is
                left.
        """
        assert self.carried.keys() | self.left.keys() == self.file.tensors.keys(), self.open
        assert not self.carried.keys() & self.left.keys()
        path, where = self.file.path, f"'{base.name}' ({base.family})"
        if self.misfits:
            name, misfit = next(iter(self.misfits.items()))
            raise MnemonError(
                f"'{path}' changes '{name}' by a matrix of {misfit.given}, which is {misfit.expected} in {where}: "
                f"{self._why_misfits()}."
            )
        if not self.file.tensors:
            raise MnemonError(f"'{path}' holds no tensor at all: fetch it again.")
        if not self.carried:
            raise MnemonError(self._nothing(where))
        if set(self.left.values()) - {LONE_MARK} and not partial:
            raise MnemonError(
                f"'{path}' holds {len(self.left)} tensors that cannot be imported into {where}: "
                f"{'; '.join(self.reasons())}. {PARTLY}"
            )

    def reasons(self) -> list[str]:
        """What is left, a phrase for each reason; keys that are a reason themselves first, such as `dora_scale`."""
        by_reason: dict[str, list[str]] = {}
        for key in sorted(self.left, key=lambda key: split(key).refused is None):
            by_reason.setdefault(self.left[key], []).append(key)
        return [f"{reason}: {listed(keys)}" for reason, keys in by_reason.items()]

    def _nothing(self, where: str) -> str:
        path, reasons = self.file.path, set(self.left.values())
        if WHOLE_MODEL in reasons:
            return (
                f"'{path}' is a whole model or a part of one, not a LoRA or an embedding: it has weights such as "
                f"{listed(list(self.left))}. To use it as a base, give it or its diffusers folder with --base."
            )
        if reasons == {NOT_HERE}:
            return f"None of the layers that '{path}' changes is in {where}, such as {listed(list(self.left))}: " + (
                f"{self._made_for()}."
            )
        return f"Nothing in '{path}' can be imported into {where}: {'; '.join(self.reasons())}."

    def _why_misfits(self) -> str:
        first = next(iter(self.misfits.values()))
        if all(misfit.transposed for misfit in self.misfits.values()):
            rows, columns = first.expected
            return (
                f"its matrices are transposed; up has to be ({rows}, rank), down (rank, {columns}), and a whole change "
                f"{first.expected}"
            )
        if len(self.misfits) == 1 and self.carried:
            return f"all other layers of the file fit, so this one is damaged, or {self._made_for()}"
        return self._made_for()

    def _made_for(self) -> str:
        header = self.file.header
        said = header.get("modelspec.architecture") or header.get("ss_base_model_version")
        seen = family_of(self.file.tensors)
        told = [f"it says '{said}'"] if said else []
        told += [f"its layers look like those of {seen}"] if seen else []
        return "it was made for another base" + "".join(f"; {one}" for one in told)


def listed(items: list[str]) -> str:
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return ", ".join(f"'{item}'" for item in items[:MAX_LISTED]) + more
