import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mnemon.classification import read_examples, read_split_list, read_task
from mnemon.classification.reading import check_apart
from mnemon.errors import MnemonError
from tests.classification.small import picture


def fill(folder: Path, places: dict[str, int], first: int = 0) -> Path:
    """Images at `places`, each of the class with this number."""
    for number, (place, label) in enumerate(places.items(), start=first):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        picture(label, number).save(folder / place, format="PNG")
    return folder


def labels(folder: Path, split: str = "train") -> list[tuple[str, str]]:
    return [(one.label, Path(one.source).name) for one in read_examples(folder, split)]  # type: ignore[arg-type]


def test_class_folders_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    fill(tmp_path, {"wren/b.png": 1, "wren/a.PNG": 1, "robin/1.jpg": 2, "Blue tit/x.webp": 3})
    (tmp_path / "README.txt").write_text("as in ImageNet-R")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "wren/.DS_Store").write_text("")
    expected = [("Blue tit", "x.webp"), ("robin", "1.jpg"), ("wren", "a.PNG"), ("wren", "b.png")]
    assert labels(tmp_path) == expected
    task = read_task(tmp_path, "birds")
    assert task.classes == ("Blue tit", "robin", "wren") and task.labels() == [0, 1, 2, 2]


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_splits_are_kept_apart(tmp_path: Path, test: str) -> None:
    fill(tmp_path, {"train/robin/0.png": 0, "train/wren/1.png": 1, f"{test}/robin/2.png": 0})
    assert labels(tmp_path) == [("robin", "0.png"), ("wren", "1.png")]
    assert labels(tmp_path, "test") == [("robin", "2.png")]


def test_metadata_gives_the_labels(tmp_path: Path) -> None:
    fill(tmp_path, {"0.png": 0, "deep/1.png": 1, "2.png": 0})
    lines = [("0.png", "robin"), ("deep/1.png", "wren"), ("2.png", "robin")]
    text = "\n".join(json.dumps({"file_name": name, "label": label, "split": "x"}) for name, label in lines)
    (tmp_path / "metadata.jsonl").write_text(text + "\n\n")
    assert labels(tmp_path) == [("robin", "0.png"), ("robin", "2.png"), ("wren", "1.png")]


def test_tiny_imagenet_is_read_with_its_words(tmp_path: Path) -> None:
    fill(tmp_path, {f"train/{name}/images/{name}_{i}.JPEG": i for i, name in enumerate(("n02", "n01", "n03"))})
    fill(tmp_path, {"val/images/val_0.JPEG": 0, "val/images/val_1.JPEG": 1, "test/images/test_0.JPEG": 5}, first=10)
    (tmp_path / "val/val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t62\t57\nval_1.JPEG\tn01\t0\t0\t62\t57\n")
    (tmp_path / "words.txt").write_text(
        "n01\tcrane\nn02\tgoldfish, Carassius auratus\nn03\tcrane\nn09\tunused, goldfish\n"
    )
    assert [label for label, _ in labels(tmp_path)] == ["crane (n01)", "goldfish", "crane (n03)"]
    assert labels(tmp_path, "test") == [("crane (n01)", "val_1.JPEG"), ("goldfish", "val_0.JPEG")]


def test_split_lists_are_read_below_any_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"n01/a.jpg": 0, "n01/b.jpg": 0, "n02/c.jpg": 1})
    listing = tmp_path / "imagenet-r_train.yaml"
    listing.write_text("data: [data/imagenet-r/n02/c.jpg, data/imagenet-r/n01/a.jpg]\ntargets: [0, 1]\n")
    assert [one.label for one in read_split_list(listing, tmp_path)] == ["n02", "n01"]


def no_image(folder: Path) -> None:
    (folder / "wren/1.png").write_text("not an image")


def loose(folder: Path) -> None:
    fill(folder, {"loose.png": 7})


def empty(folder: Path) -> None:
    (folder / "lark").mkdir()


def texts_only(folder: Path) -> None:
    (folder / "lark").mkdir()
    (folder / "lark/notes.txt").write_text("nothing here")


def twice(folder: Path) -> None:
    fill(folder, {"Wren/9.png": 9})


def shared(folder: Path) -> None:
    (folder / "robin/copy.png").write_bytes((folder / "wren/1.png").read_bytes())


def nested(folder: Path) -> None:
    fill(folder, {"wren/more/3.png": 3})


def half(folder: Path) -> None:
    content = (folder / "wren/1.png").read_bytes()
    (folder / "wren/1.png").write_bytes(content[: len(content) // 2])


def metadata(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "metadata.jsonl").write_text(text)

    return write


BAD = [
    (no_image, "1.png' is no readable JPEG, PNG or WebP image"),
    (half, "1.png' is truncated or damaged"),
    (loose, "loose.png' lies in no class folder"),
    (empty, "lark' has no images: add some, or delete it"),
    (texts_only, "lark' has no images"),
    (twice, r"The class 'wren' is twice in .* \(also as 'Wren'\)"),
    (shared, "are the same image, of the classes 'robin' and 'wren'"),
    (nested, "more' is a folder within a class"),
    (metadata("{"), "Malformed metadata in line 1"),
    (metadata('{"file_name": "wren/1.png"}'), "Malformed metadata in line 1"),
    (metadata('{"file_name": "wren/1.png", "label": " "}'), "Malformed metadata in line 1"),
    (metadata('{"file_name": "../x.png", "label": "a"}'), "leaves the folder"),
    (metadata('{"file_name": "gone.png", "label": "a"}'), "There is no image .*gone.png', which line 1"),
    (metadata("\n"), "names no images"),
]


@pytest.mark.parametrize("spoil, said", BAD, ids=[getattr(spoil, "__name__", "x") for spoil, _ in BAD])
def test_what_is_wrong_with_a_folder_is_said_once(spoil: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    fill(tmp_path, {"robin/0.png": 0, "wren/1.png": 1})
    spoil(tmp_path)
    with pytest.raises(MnemonError, match=said):
        read_examples(tmp_path)


def test_what_is_no_folder_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MnemonError, match="There is no folder"):
        read_examples(tmp_path / "nowhere")
    with pytest.raises(MnemonError, match="has no class folders"):
        read_examples(tmp_path)
    fill(tmp_path, {"one.png": 0})
    with pytest.raises(MnemonError, match="is a file, not a folder"):
        read_examples(tmp_path / "one.png")
    fill(tmp_path / "set", {"train/a/0.png": 0})
    with pytest.raises(MnemonError, match="has 'train', but no 'test'"):
        read_examples(tmp_path / "set", "test")


@pytest.mark.parametrize(
    "text, said",
    [
        ("data: [a", "is no YAML"),
        ("- 1", "must have 'data' and 'targets' of one length"),
        ("data: [n01/a.jpg]\ntargets: [0, 1]", "of one length"),
        ("data: []\ntargets: []", "of one length"),
        ("data: [n01/gone.jpg]\ntargets: [0]", "There is no image 'n01/gone.jpg' below"),
        ("data: [../n01/a.jpg, /etc/a.jpg]\ntargets: [0, 0]", "There is no image '/etc/a.jpg' below"),
        ("data: [n01/a.jpg, n02/c.jpg]\ntargets: [0, 0]", "has images in 'n01' and in 'n02'"),
        ("data: [n01/a.jpg, n01/b.jpg]\ntargets: [0, 1]", "class 'n01' is twice"),
        ("!!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_a_bad_split_list_is_refused(text: str, said: str, tmp_path: Path) -> None:
    fill(tmp_path, {"n01/a.jpg": 0, "n01/b.jpg": 0, "n02/c.jpg": 1})
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(MnemonError, match=said):
        read_split_list(tmp_path / "list.yaml", tmp_path)


def test_a_test_image_among_the_training_ones_is_named_with_its_twin(tmp_path: Path) -> None:
    fill(tmp_path, {"train/robin/0.png": 0, "test/robin/5.png": 0, "test/robin/7.png": 0})
    trained = [(one.sha256, one.source) for one in read_examples(tmp_path)]
    check_apart(trained, read_examples(tmp_path, "test"))
    (tmp_path / "test/robin/6.png").write_bytes((tmp_path / "train/robin/0.png").read_bytes())
    with pytest.raises(
        MnemonError, match=r"6.png' was trained on as '.*train/robin/0.png': accuracy on it says nothing"
    ):
        check_apart(trained, read_examples(tmp_path, "test"))


def test_a_folder_whose_name_is_no_name_asks_for_one(tmp_path: Path) -> None:
    fill(tmp_path / "Birds 2024", {"robin/0.png": 0})
    with pytest.raises(MnemonError, match="'.*Birds 2024' cannot name a task: give it a name"):
        read_task(tmp_path / "Birds 2024")
    with pytest.raises(MnemonError, match="'Birds' cannot name a task"):
        read_task(tmp_path / "Birds 2024", "Birds")
