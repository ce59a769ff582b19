"""A library of classes on disk, and the command that works on it."""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from mnemon.classification import (
    CLASSIFIERS,
    Classifier,
    ClassLibrary,
    accuracy_figures,
    evaluate_classes,
    export_classifier,
    learn_classes,
    load_backbone,
    predict,
)
from mnemon.classification.training import normalised_for
from mnemon.classification.views import test_view as view_of
from mnemon.cli import main, records
from mnemon.errors import MnemonError
from mnemon.library import History, Library
from mnemon.library.checking import problems
from mnemon.training.resume import Checkpoints
from tests.classification.conftest import Course
from tests.classification.small import Backbone, backbone, backbone_folder, example, small, small_model, task
from tests.classification.test_contract import IMAGES, assert_same
from tests.classification.test_reading import fill
from tests.processes import die, exit_code, started

EVERY = pytest.mark.parametrize("name", CLASSIFIERS)


def stored(path: Path, name: str, course: Course, count: int = 3) -> ClassLibrary:
    library = ClassLibrary.open_or_create(path, backbone(), small(name))
    for number, trained in enumerate(course(name)[:count]):
        one = task(number, images=2)
        if trained.name == "all":
            one = type(one)("all", trained.classes, tuple(example(label, 0) for label in range(24)))
        library.commit(one, trained, {"seed": 0})
    return library


@EVERY
def test_what_was_learned_is_read_as_it_was_at_every_revision(name: str, course: Course, tmp_path: Path) -> None:
    library = stored(tmp_path, name, course)
    for revision in range(1, library.revision + 1):
        past = ClassLibrary.open(tmp_path, revision)
        for left, right in zip(past.learned(), course(name)[:revision], strict=True):
            assert_same(left, right)
            assert left.classes == right.classes
        with Classifier.opened(backbone(), past.method, past.learned()) as opened:
            read = opened.predict(IMAGES)
        with Classifier.opened(backbone(), small(name), course(name)[:revision]) as opened:
            assert torch.equal(opened.predict(IMAGES), read)


@EVERY
def test_merged_weights_export_as_a_plain_folder_with_equal_logits(name: str, course: Course, tmp_path: Path) -> None:
    import transformers

    library = stored(tmp_path / "lib", name, course)
    if not library.method.merges:
        with pytest.raises(MnemonError, match=re.escape(f"What '{name}' learns is no change of the weights")):
            export_classifier(library.path, tmp_path / "out", backbone())
        return
    export_classifier(library.path, tmp_path / "out", backbone())
    plain = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    assert type(plain).__name__ == "ViTForImageClassification"
    images = normalised_for(library.method, backbone(), [view_of(image, 16) for image in IMAGES])
    with Classifier.opened(backbone(), library.method, library.learned()) as opened:
        torch.testing.assert_close(plain(images).logits, opened.logits(images), atol=1e-5, rtol=1e-5)
        assert [plain.config.id2label[place] for place in range(len(opened.classes))] == opened.classes
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(processor(IMAGES, return_tensors="pt")["pixel_values"], images, atol=0.02, rtol=0)


@pytest.mark.parametrize("family", ["deit", "dinov2", "clip_vision_model"])
def test_other_families_export_or_say_why_not(family: str, tmp_path: Path) -> None:
    import transformers

    on, method = Backbone(small_model(family), family), small("lora", epochs=1)
    learn_classes(tmp_path / "lib", task(0, images=2), backbone=on, method=method)
    if family == "clip_vision_model":
        with pytest.raises(MnemonError, match="no classifier of the family 'clip_vision_model'"):
            export_classifier(tmp_path / "lib", tmp_path / "out", on)
        return
    plain = transformers.AutoModelForImageClassification.from_pretrained(
        export_classifier(tmp_path / "lib", tmp_path / "out", on)
    )
    images = torch.rand(2, 3, 16, 16)
    library = ClassLibrary.open(tmp_path / "lib")
    with Classifier.opened(on, method, library.learned()) as opened:
        torch.testing.assert_close(plain.eval()(images).logits, opened.logits(images), atol=1e-5, rtol=1e-5)
    with pytest.raises(MnemonError, match="is not an empty folder"):
        export_classifier(tmp_path / "lib", tmp_path / "out", on)


def test_a_library_refuses_what_does_not_belong(tmp_path: Path, course: Course) -> None:
    library = stored(tmp_path / "lib", "lora", course)
    with pytest.raises(MnemonError, match="has a task 'task-1' already"):
        learn_classes(library.path, task(0), backbone=backbone())
    again = type(task(0))("again", ("class-1", "class-90"), (example(1, 9), example(90, 9)))
    with pytest.raises(MnemonError, match="'class-1' was learned with the task 'task-1' .* a class comes once"):
        learn_classes(library.path, again, backbone=backbone())
    with pytest.raises(MnemonError, match="made on the backbone 'vit' .* not on 'other'"):
        learn_classes(library.path, task(5), backbone=Backbone(small_model(seed=1), "other"))
    with pytest.raises(MnemonError, match="learns with 'lora' and its settings"):
        learn_classes(library.path, task(5), backbone=backbone(), method="ewc")
    for kind in (Library, History):
        with pytest.raises(MnemonError, match="is one of classes, not of concepts: use mnemon classify"):
            kind.open(library.path)
    with pytest.raises(MnemonError, match="No classes were learned yet"):
        ClassLibrary.open_or_create(tmp_path / "empty", backbone(), small("lora"))
        predict(tmp_path / "empty", [], backbone=backbone())
    assert ClassLibrary.open(library.path).revision == 3


def test_a_damaged_file_is_named_and_the_past_before_it_opens(tmp_path: Path, course: Course) -> None:
    library = stored(tmp_path, "lora", course)
    (tmp_path / "concepts/000003-task-3/head.safetensors").write_bytes(b"")
    with pytest.raises(MnemonError, match="head.safetensors"):
        library.learned()
    assert len(ClassLibrary.open(tmp_path, 2).learned()) == 2


def test_accuracies_are_counted_by_hand(tmp_path: Path, course: Course) -> None:
    library = stored(tmp_path, "nearest-mean", course)
    test = [example(label, 50 + image) for label in range(8) for image in range(1 + label % 2)]
    result = evaluate_classes(tmp_path, test, backbone())
    assert result.unknown == ("class-6", "class-7") and library.rows() == result.rows
    for revision, row in result.rows.items():
        with Classifier.opened(backbone(), library.method, course("nearest-mean")[:revision]) as opened:
            for number in range(revision):
                own = [one for one in test if one.label in (f"class-{2 * number}", f"class-{2 * number + 1}")]
                best = opened.predict([one.image for one in own]).argmax(1)
                right = sum(opened.classes[place] == one.label for place, one in zip(best, own, strict=True))
                assert row["concepts"][f"task-{number + 1}"] == {"accuracy": right / 3, "correct": right, "images": 3}
    with pytest.raises(MnemonError, match="test image '0/1.png' was trained on as '0/1.png'"):
        evaluate_classes(tmp_path, [*test, example(0, 1)], backbone())
    with pytest.raises(MnemonError, match="no test images of the class 'class-5'"):
        evaluate_classes(tmp_path, [one for one in test if one.label != "class-5"], backbone())


def test_twelve_tasks_give_the_figures_of_their_formulas() -> None:
    generator = torch.Generator().manual_seed(0)
    r = torch.randint(0, 11, (12, 12), generator=generator) / 10
    rows = {
        t + 1: {
            "concepts": {
                f"task-{j + 1}": {"accuracy": float(r[t, j]), "correct": float(r[t, j]) * (j + 1), "images": j + 1}
                for j in range(t + 1)
            }
        }
        for t in range(12)
    }
    found = accuracy_figures(rows)
    drops = [float((r[t - 1, :t] - r[t, :t]).mean()) for t in range(1, 12)]
    best = [max(float(r[t, j]) for t in range(j, 12)) - float(r[11, j]) for j in range(11)]
    weights = torch.arange(1, 13)
    weighted = [float((r[t, : t + 1] * weights[: t + 1]).sum() / weights[: t + 1].sum()) for t in range(12)]
    expected = {
        "a_n": float(r[11].mean()),
        "a_n_class_weighted": weighted[-1],
        "average_incremental": sum(float(r[t, : t + 1].mean()) for t in range(12)) / 12,
        "average_incremental_class_weighted": sum(weighted) / 12,
        "f_n": sum(drops) / 11,
        "forgetting_from_best": sum(best) / 11,
        "forgetting_from_first": sum(float(r[j, j] - r[11, j]) for j in range(11)) / 11,
        "learning_accuracy": float(r.diagonal().mean()),
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert accuracy_figures({1: rows[1]})["f_n"] is None


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    fill(
        tmp_path / "birds",
        {f"{label}/{i}.png": number for number, label in enumerate(("robin", "wren")) for i in (0, 1)},
    )
    fill(
        tmp_path / "fish",
        {f"{label}/{i}.png": 5 + number for number, label in enumerate(("carp", "eel")) for i in (0, 1)},
    )
    places = {f"{label}/9.png": number for label, number in (("robin", 0), ("wren", 1), ("carp", 5), ("eel", 6))}
    fill(tmp_path / "unseen", places, first=90)
    return tmp_path


SMALL = ("--set", "epochs=2", "--set", "rank=2", "--set", "mask_rank=2", "--set", "batch_size=2")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mnemon", "classify", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return call


def test_the_command_learns_predicts_measures_shows_and_exports(run: Any, birds: Path) -> None:
    on, library = backbone_folder(birds), ("--library", birds / "guide")
    assert "'birds' learned: 2 classes" in run("learn", birds / "birds", *library, "-b", on, *SMALL)[1]
    code, text, _ = run("learn", birds / "fish", *library, "--json")
    assert json.loads(text) == {"revision": 2, "task": "fish", "classes": ["carp", "eel"]}
    rows = json.loads(run("predict", birds / "unseen/eel/9.png", *library, "--top", 3, "--json")[1])
    assert len(rows[0]["classes"]) == 3 and rows[0]["shares"] == sorted(rows[0]["shares"], reverse=True)
    past = json.loads(run("predict", birds / "unseen/eel/9.png", *library, "--at", 1, "--top", 9, "--json")[1])
    assert sorted(past[0]["classes"]) == ["robin", "wren"]
    figures = json.loads(run("evaluate", birds / "unseen", *library, "--json")[1])["figures"]
    assert 0 <= figures["a_n"] <= 1
    assert "a_n_class_weighted" in run("evaluate", birds / "unseen", *library)[1]
    shown = run("show", *library)[1]
    assert "stamina on" in shown and "carp, eel" in shown
    assert run("export", birds / "plain", *library)[0] == 0 and (birds / "plain/model.safetensors").exists()
    assert not (birds / "guide/training").exists() or not list((birds / "guide/training").rglob("*.safetensors"))
    code, _, said = run("learn", birds / "fish", *library)
    assert code == 1 and "has a task 'fish' already" in said
    code, _, said = run("predict", birds / "unseen/gone.png", *library)
    assert code == 1 and "There is no file" in said


def _learn_and_die(folder: Path, arguments: Sequence[str]) -> None:
    save = Checkpoints.save

    def save_and_die(self: Checkpoints, step: int) -> None:
        save(self, step)
        if step == 3:
            die()

    Checkpoints.age = property(lambda self: float("inf"))  # type: ignore[assignment,method-assign]
    Checkpoints.save = save_and_die  # type: ignore[method-assign]
    os.chdir(folder)
    sys.argv = ["mnemon", "classify", *arguments]
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        main()


def test_a_killed_command_goes_on_to_the_same_bits(run: Any, birds: Path) -> None:
    arguments = ("learn", birds / "birds", "-b", backbone_folder(birds), *SMALL, "--library")
    assert run(*arguments, birds / "whole")[0] == 0
    killed = [str(argument) for argument in (*arguments, birds / "killed")]
    assert exit_code(started(_learn_and_die, birds, killed)) == -9
    assert ClassLibrary.open(birds / "killed").revision == 0
    assert list((birds / "killed/training").rglob("*.safetensors"))
    assert run(*arguments, birds / "killed")[0] == 0

    def files(name: str) -> list[bytes]:
        return [file.read_bytes() for file in sorted((birds / name / "concepts").rglob("*.safetensors"))]

    assert files("whole") == files("killed") and len(files("whole")) == 2


def test_five_lines_of_python(birds: Path) -> None:
    from mnemon import classification as c

    c.learn_classes(
        birds / "guide", birds / "birds", backbone=str(backbone_folder(birds)), method=small("nearest-mean")
    )
    c.learn_classes(birds / "guide", birds / "fish")
    found = [c.predict(birds / "guide", [file])[0]["classes"][0] for file in sorted((birds / "unseen").rglob("*.png"))]
    result = c.evaluate_classes(birds / "guide", c.read_examples(birds / "unseen"), load_backbone(str(birds / "vit")))
    right = sum(one == label for one, label in zip(found, ["carp", "eel", "robin", "wren"], strict=True))
    assert result.figures["a_n"] == right / 4


@pytest.mark.parametrize(("file", "cost"), [("head.safetensors", "<task-2>"), ("deltas.safetensors", "<task-2>")])
def test_check_reads_every_file_of_a_library_of_classes(
    file: str, cost: str, course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = stored(tmp_path / "lib", "lora", course)
    records.check(library.path)
    assert "all 3 tasks are whole" in capsys.readouterr().out
    (path,) = (tmp_path / "lib" / "concepts").glob(f"*-task-2/{file}")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SystemExit):
        records.check(library.path)
    said = " ".join(capsys.readouterr().out.split())
    assert "is damaged or was changed" in said and f"{cost}, learned as revision 2" in said
    assert [problem.costs for problem in problems(library.path)] == [f"{cost}, learned as revision 2"]
