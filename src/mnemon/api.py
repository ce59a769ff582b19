"""The jobs of mnemon: learn, generate, evaluate. The command line does nothing but call these."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnemon.data import Concept, photos_tensor
from mnemon.data.tensors import Fit
from mnemon.errors import MnemonError
from mnemon.library import Library
from mnemon.methods import method_from, method_settings
from mnemon.methods.base import Method
from mnemon.metrics import (
    Encoders,
    ScoreMatrix,
    ScoreSettings,
    encoders_for,
    matrix_from_rows,
    measure_row,
    reference_features,
    settings_for,
)
from mnemon.metrics.measure import OnPictures
from mnemon.models import Base, load_base
from mnemon.prompts import class_prompt, preview_prompt, training_prompts
from mnemon.sampling import Composed, PictureFacts, draw, save_picture
from mnemon.training import Examples, TrainingSettings, discard_snapshot, train
from mnemon.world import base_folder

OnStep = Callable[[int, int, Mapping[str, float]], None]
"""Called with the steps done, the steps in all, and what is logged."""
CROPS = 4  # of each photo, where random crops are asked for


@dataclass(frozen=True)
class PhotoSettings:
    """How photos become squares: `fit` "crop" or "pad"; `flip` adds each one mirrored; `random_crop` takes four squares
    of each, at random places, instead of the middle one (with `flip`, every second one mirrored)."""

    fit: Fit = "crop"
    flip: bool = False
    random_crop: bool = False


@dataclass(frozen=True)
class Outcome:
    """What `learn` did: the library's new state, the measured row (None if not scored), and the seconds it took."""

    state: int
    row: dict[str, Any] | None
    training_seconds: float
    scoring_seconds: float


def learn(
    library: str | Path,
    concept: Concept,
    *,
    base: str | Base | None = None,
    method: str | Method | None = None,
    references: Concept | None = None,
    photos: PhotoSettings | None = None,
    training: TrainingSettings | None = None,
    prior: int = 0,
    score: ScoreSettings | None = None,
    scored: bool = True,
    encoders: Encoders | None = None,
    on_step: OnStep | None = None,
    on_pictures: OnPictures | None = None,
) -> Outcome:
    """Teach a library one more concept, and measure what it knows of every concept so far.

    A library that does not exist yet is made, on `base` ("world" by default) and with `method` ("stamina" by
    default); one that exists keeps its own. A call that was killed goes on where it was when it is made again.

    Args:
        library: the library's folder.
        concept: name, photos and class noun.
        base: a base, or the name of one: "world", a diffusers folder or a hub id.
        method: a method or its name.
        references: other photos of the concept, never trained on, to score against; the training photos without them.
        photos, training, score: settings; defaults are the method's and the base's own.
        prior: class pictures to draw from the bare base and to train on as well (prior preservation).
        scored: measure the row of the score matrix, and keep features of the references for later rows.
        encoders: what measures; by default the base's own, or CLIP and DINO.
        on_step: hears the training's progress.
        on_pictures: hears the pictures that are scored.

    Raises:
        MnemonError: anything in the way, in one sentence; the library is as it was then.
    """
    path, training = Path(library), training or TrainingSettings()
    with _open_or_create(path, base, method) as (opened, resolved), opened.lock():
        opened.check_name(concept.name)
        # Before the training, since encoders may have to be fetched from the hub, and that may fail.
        measure = (encoders or _encoders(resolved)) if scored else None
        features = _features(measure, references or concept, resolved)
        began = time.monotonic()
        latents, prompts = _examples(resolved, opened.method, concept, photos or PhotoSettings(), training.seed)
        learned = train(
            resolved,
            opened.method,
            concept.name,
            concept.noun,
            latents,
            prompts,
            opened.learned(),
            training,
            path / "training",
            on_step=on_step,
            on_preview=lambda step: _preview(path, resolved, opened.method, concept, step),
            prior=_prior(resolved, concept, prior, training.seed),
        )
        trained = time.monotonic()
        facts = [{"source": photo.source, "sha256": photo.sha256} for photo in concept.photos]
        settings = {
            "training": asdict(training),
            "held_out": references is not None,
            "seconds": round(trained - began, 1),
        }
        state = opened.commit(learned, photos=facts, settings=settings, references=features)
        discard_snapshot(path / "training")
        row = _measure(opened, resolved, measure, score, on_pictures) if measure else None
    return Outcome(state, row, trained - began, time.monotonic() - trained)


def generate(
    library: str | Path | Library | None,
    prompt: str | Sequence[str],
    *,
    base: str | Base | None = None,
    negative: str = "",
    seed: int = 0,
    number: int = 1,
    guidance: float = 4.0,
    steps: int = 30,
    batch: int = 8,
    out: str | Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw `number` pictures of each prompt, with seeds `seed`, `seed + 1`, ...; `<name>` stands for a concept.

    Args:
        library: a library or its folder; None draws from the bare base.
        guidance: scale of classifier-free guidance; 1 switches it off.
        out: a folder for PNG files that say how they were made.

    Returns:
        (n, 3, side, side) in 0..1, prompts in order.

    Raises:
        MnemonError: a prompt names an unknown concept, or library or base cannot be opened.
    """
    opened = Library.open(library) if isinstance(library, str | Path) else library
    resolved = _resolve(base or (opened.base_name if opened else "world"))
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    texts = [text for text in prompts for _ in range(number)]
    seeds = [seed + index for _ in prompts for index in range(number)]
    options: dict[str, Any] = {"negative": negative, "seeds": seeds, "guidance": guidance, "steps": steps}
    if opened is None:
        pictures = draw(resolved, texts, batch=batch, on_step=on_step, **options)
    else:
        opened.check_base(resolved)
        with Composed(resolved, opened.method, opened.learned()) as composed:
            pictures = composed.draw(texts, batch=batch, on_step=on_step, **options)
    if out is not None:
        _save_all(Path(out), pictures, texts, seeds, opened, resolved, negative, guidance, steps)
    return pictures


def evaluate(
    library: str | Path,
    *,
    base: str | Base | None = None,
    score: ScoreSettings | None = None,
    encoders: Encoders | None = None,
    again: bool = False,
    on_state: Callable[[int, int], None] | None = None,
    on_pictures: Callable[[int, str | None, Tensor], None] | None = None,
) -> ScoreMatrix:
    """Fill the score matrix R[t, j]: measure every state of the library that has no row yet, or all of them `again`.

    Args:
        on_state: hears the state being measured and the number of states.
        on_pictures: hears the state, the concept (None for general prompts) and the pictures.

    Returns:
        The matrix of identity alignment; `library.rows()` holds all scores.
    """
    newest = Library.open(library)
    resolved = _resolve(base or newest.base_name)
    newest.check_base(resolved)
    measure = encoders or _encoders(resolved)
    with newest.lock():
        rows = newest.rows()
        for state in range(1, newest.state + 1):
            if on_state is not None:
                on_state(state, newest.state)
            if again or state not in rows:
                past = Library.open(library, at=state)
                row = _row(past, resolved, measure, score, _at(on_pictures, state))
                newest.write_row(state, row)
    return matrix_from_rows(newest.rows(), "identity_alignment")


@contextmanager
def _open_or_create(path: Path, base: str | Base | None, method: str | Method | None) -> Iterator[tuple[Library, Base]]:
    """The library, and the base it belongs to. A new library goes again if its first concept fails, but not if it is
    interrupted: then there is something to go on from."""
    if (path / "library.json").exists():
        opened = Library.open(path)
        _check_method(opened, method)
        resolved = _resolve(base or opened.base_name)
        opened.check_base(resolved)
        yield opened, resolved
        return
    chosen = method if isinstance(method, Method) else method_from(method or "stamina")
    resolved = _resolve(base or "world")
    opened = Library.create(path, resolved, chosen)
    try:
        yield opened, resolved
    except Exception:
        if opened.state == 0:
            _withdraw(path)
        raise


def _withdraw(path: Path) -> None:
    """Take away a library that has learned nothing, and its folder unless there is something else in it."""
    for name in ("library.json", "lock"):
        (path / name).unlink(missing_ok=True)
    for name in ("training", "previews", "concepts", "references"):
        shutil.rmtree(path / name, ignore_errors=True)
    if not any(path.iterdir()):
        path.rmdir()


def _check_method(library: Library, method: str | Method | None) -> None:
    """A library keeps the method it was made with, and its settings."""
    own = library.method
    if method in (None, own.name, own):
        return
    other = method_from(method) if isinstance(method, str) else method
    assert other is not None
    what = f"the method '{own.name}', not '{other.name}'"
    if type(other) is type(own):
        mine, asked = method_settings(own), method_settings(other)
        what = ", ".join(f"{key}={mine[key]}, not {key}={asked[key]}" for key in mine if mine[key] != asked[key])
    raise MnemonError(f"The library {library.path} was made with {what}, and keeps to it: choose another folder.")


def _resolve(base: str | Base) -> Base:
    """A base by its name; folders by their whole path, which stays true wherever a library is opened from."""
    if isinstance(base, Base):
        return base
    folder = Path(base).expanduser()
    name = str(folder.resolve()) if base != "world" and folder.is_dir() else base
    return load_base(name, device="cuda" if torch.cuda.is_available() else "cpu")


def _encoders(base: Base) -> Encoders:
    folder = base_folder() if base.name == "world" else Path(base.name)
    return encoders_for(folder if folder.is_dir() else None, base.device)


def _examples(
    base: Base, method: Method, concept: Concept, photos: PhotoSettings, seed: int
) -> tuple[Tensor, list[str]]:
    """Latents, encoded once, and a prompt for each."""
    generator = torch.Generator().manual_seed(seed)
    draws = CROPS if photos.random_crop else 2 if photos.flip else 1
    crop: dict[str, Any] = {"fit": photos.fit, "random_crop": photos.random_crop, "generator": generator}
    variants = [photos_tensor(concept, base.resolution, **crop) for _ in range(draws)]
    if photos.flip:  # not by chance: of few photos, chance may well mirror all or none
        variants[1::2] = [variant.flip(-1) for variant in variants[1::2]]
    latents = torch.cat([base.encode_images(picture[None]) for variant in variants for picture in variant])
    rows, prompts = training_prompts(concept, method)
    count = len(concept.photos)
    return latents[[row + count * draw for draw in range(draws) for row in rows]], prompts * draws


def _features(encoders: Encoders | None, concept: Concept, base: Base) -> dict[str, Tensor] | None:
    """What is kept of the reference pictures, to score the concept against for ever after."""
    if encoders is None:
        return None
    return reference_features(encoders, photos_tensor(concept, base.resolution))


def _prior(base: Base, concept: Concept, number: int, seed: int) -> Examples | None:
    """Pictures of the concept's class, drawn by the bare base."""
    if not number:
        return None
    prompt = class_prompt(concept)
    seeds = range(seed + 10_000, seed + 10_000 + number)
    pictures = draw(base, [prompt] * number, seeds=seeds, guidance=4.0, steps=30)
    return Examples(base.encode_images(pictures), [prompt] * number)


def _preview(path: Path, base: Base, method: Method, concept: Concept, step: int) -> None:
    """Four pictures as the concept would be drawn if training stopped now."""
    prompt = preview_prompt(concept, method)
    pictures = draw(base, [prompt] * 4, seeds=range(4), guidance=4.0, steps=20)
    for seed, picture in enumerate(pictures):
        facts = PictureFacts(prompt, seed, 4.0, 20, base.name, library=str(path), concepts=(concept.name,))
        save_picture(path / "previews" / concept.name / f"step-{step:05d}-{seed}.png", picture, facts)


def _measure(
    library: Library, base: Base, encoders: Encoders, score: ScoreSettings | None, on_pictures: OnPictures | None
) -> dict[str, Any]:
    row = _row(library, base, encoders, score, on_pictures)
    library.write_row(library.state, row)
    return row


def _row(
    library: Library, base: Base, encoders: Encoders, score: ScoreSettings | None, on_pictures: OnPictures | None
) -> dict[str, Any]:
    references = {name: library.references(name) for name in library.names()}
    known = {name: features for name, features in references.items() if features}
    settings = score or settings_for(encoders)
    return measure_row(base, library.method, library.learned(), known, encoders, settings, on_pictures)


def _at(on_pictures: Callable[[int, str | None, Tensor], None] | None, state: int) -> OnPictures | None:
    return None if on_pictures is None else lambda name, pictures: on_pictures(state, name, pictures)


def _save_all(
    folder: Path,
    pictures: Tensor,
    prompts: Sequence[str],
    seeds: Sequence[int],
    library: Library | None,
    base: Base,
    negative: str,
    guidance: float,
    steps: int,
) -> None:
    """`00000.png` and so on, going on after the pictures that are there already."""
    taken = [int(file.stem) for file in folder.glob("[0-9]*.png") if file.stem.isdigit()]
    first = max(taken, default=-1) + 1
    for index, picture in enumerate(pictures):
        facts = PictureFacts(
            prompts[index],
            seeds[index],
            guidance,
            steps,
            base.name,
            negative,
            str(library.path) if library else None,
            library.state if library else None,
            tuple(library.names()) if library else (),
        )
        save_picture(folder / f"{first + index:05d}.png", picture, facts)


def single_lora_identity_ratio(
    base: str | Base, seeds: Sequence[int] = (901, 902, 903, 904), on_step: OnStep | None = None
) -> float:
    """How well the base can be taught at all: identity alignment of one concept learned by `lora` alone, over what
    renders of the concept reach against one another; the mean over concepts of the world, on pictures not trained on.
    """
    from mnemon.world import thing_concept

    resolved = _resolve(base)
    encoders, method = _encoders(resolved), method_from("lora")
    ratios = []
    for seed in seeds:
        concept = thing_concept("it", seed)
        latents, prompts = _examples(resolved, method, concept.photos(5, seed=1), PhotoSettings(), 0)
        learned = train(resolved, method, "it", concept.noun, latents, prompts, on_step=on_step)
        pictures = photos_tensor(concept.photos(16, seed=2), resolved.resolution)
        references = {"it": reference_features(encoders, pictures)}
        row = measure_row(resolved, method, [learned], references, encoders, settings_for(encoders))
        scores = row["concepts"]["it"]
        ratios.append(scores["identity_alignment"] / scores["identity_ceiling"])
    return sum(ratios) / len(ratios)
