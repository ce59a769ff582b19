import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mnemon.benchmark import ConceptSequence, open_sequence, shipped_sequences
from mnemon.benchmark.sequences import ConceptSpec
from mnemon.benchmark.sources import CIFC, templates_from
from mnemon.errors import MnemonError
from mnemon.evaluation.prompts import PROMPTS, EvalPrompts, combinations, combined_prompts, concept_prompts
from mnemon.methods import method_from

DEMO = range(201, 206)


def seeds(name: str) -> list[int]:
    path = Path(__file__).parents[2] / "src" / "mnemon" / "benchmark" / "data" / f"{name}.json"
    return [entry["seed"] for entry in json.loads(path.read_text())["concepts"]]


def images(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for index in range(first, first + count):
        Image.new("RGB", (16, 16), (index, 0, 0)).save(folder / f"{index:02}.jpg")


def nouns(sequence: ConceptSequence) -> list[str | None]:
    return [one.class_noun for one in sequence.concepts if one.kind == "thing"]


def test_the_shipped_sequences_have_their_shapes() -> None:
    ten, fifty, hundred = (open_sequence(f"world-{count}") for count in (10, 50, 100))
    assert len(nouns(ten)) == 7 and sorted(nouns(ten).count(class_noun) for class_noun in set(nouns(ten))) == [
        1,
        1,
        1,
        2,
        2,
    ]
    assert [one.kind for one in ten.concepts].count("style") == 3
    assert len(nouns(fifty)) == len(fifty.concepts) == 50 and len(set(nouns(fifty))) == 5
    assert len(hundred.concepts) == 100 and len(open_sequence("world-6").concepts) == 6


def test_development_and_reporting_concepts_are_not_the_same() -> None:
    assert {"world-6-dev", "world-10-dev", "world-50-dev"} <= set(shipped_sequences())
    development = [seed for name in shipped_sequences() if name.endswith("-dev") for seed in seeds(name)]
    reporting = [seed for name in shipped_sequences() if not name.endswith("-dev") for seed in seeds(name)]
    assert all(5001 <= seed < 6000 for seed in development) and all(1001 <= seed < 2000 for seed in reporting)
    assert len(set(development)) == len(development) and len(set(reporting)) == len(reporting)
    assert not {*development, *reporting} & set(DEMO)


def test_few_concepts_have_few_orders_and_none_comes_twice() -> None:
    sequence = open_sequence("world-6")
    few = replace(sequence, concepts=sequence.concepts[:3])
    assert len({few.ordered(order).concepts for order in range(6)}) == 6
    with pytest.raises(MnemonError, match="3 concepts, so 6 orders, not 7"):
        few.ordered(6)


def test_an_order_is_a_permutation_that_its_number_decides() -> None:
    sequence = open_sequence("world-10")
    names = [[one.name for one in sequence.ordered(order).concepts] for order in (0, 1, 1, 2)]
    assert names[0] == [one.name for one in sequence.concepts]
    assert names[1] == names[2] and len({tuple(one) for one in names}) == 3
    assert all(sorted(one) == sorted(names[0]) for one in names)


def test_what_is_scored_against_was_not_trained_on() -> None:
    photos = open_sequence("world-6").concepts[0].photos()
    trained, references = ({photo.sha256 for photo in part.photos} for part in photos[:2])
    assert photos.held_out and len(trained) == 5 and len(references) == 16 and not trained & references


def test_a_folder_of_ones_own(three: Path, tmp_path: Path) -> None:
    cat, ink, mug = open_sequence(str(three)).concepts
    assert [(one.name, one.class_noun, one.kind) for one in (cat, ink, mug)] == [
        ("cat", "cat", "thing"), ("ink", None, "style"), ("mug", "mug", "thing")
    ]  # fmt: skip
    trained, references, held_out = cat.photos()
    assert (len(trained.photos), len(references.photos), held_out) == (4, 2, True)
    assert mug.photos().held_out is False and mug.photos().references is mug.photos().trained
    with pytest.raises(MnemonError, match="holds no concepts"):
        open_sequence(str(tmp_path))
    with pytest.raises(MnemonError, match="There is no sequence 'world-7'"):
        open_sequence("world-7")


def test_the_published_layouts_are_read_as_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cifc = tmp_path / "cifc" / "datasets"
    prompts = {"pet": "A <TOK>, in the forest", "plushy": "A <TOK> on a table", "style": "A <TOK> of a dog"}
    folders = [folder for folder, *_ in CIFC]
    for folder in folders:
        images(cifc / "images" / folder, 2)
    (cifc / "evaluation_prompts").mkdir()
    for name, line in prompts.items():
        (cifc / "evaluation_prompts" / f"test_{name}.txt").write_text(f"{line}\n\n")
    (cifc / "caption" / "ink_painting").mkdir(parents=True)
    (cifc / "caption" / "ink_painting" / "00.txt").write_text("ink painting of a bridge\n")
    sequence = open_sequence(str(tmp_path / "cifc"))
    assert [one.name for one in sequence.concepts] == folders
    ink = sequence.concepts[-1]
    assert (ink.class_noun, ink.kind, ink.templates) == ("ink painting", "style", ("A {} of a dog",))
    assert [photo.caption for photo in ink.photos().trained.photos] == ["<ink_painting> ink painting of a bridge", None]

    dreambooth = tmp_path / "dreambooth"
    images(dreambooth / "dataset" / "dog6", 6)
    images(dreambooth / "dataset" / "can", 6)
    listed = "Classes\n\nsubject_name,class\ncan,can\ndog6,dog\n\nPrompts\n\nObject Prompts\n\nprompt_list = [\n"
    line = "'a {0} {1} %s'.format(unique_token, class_token)"
    listed += f"{line % 'on a rug'}\n]\n\nLive Subject Prompts\n\nprompt_list = [\n{line % 'in a hat'}\n]\n"
    (dreambooth / "dataset" / "prompts_and_classes.txt").write_text(listed)
    can, dog = open_sequence(str(dreambooth)).concepts
    assert (can.class_noun, can.templates, dog.class_noun, dog.templates) == (
        "can",
        ("a {} on a rug",),
        "dog",
        ("a {} in a hat",),
    )
    assert dog.photos().held_out

    custom = tmp_path / "custom"
    images(custom / "benchmark_dataset" / "pet_cat1", 3)
    (custom / "prompts").mkdir()
    (custom / "prompts" / "cat.txt").write_text("photo of a {}.\n{} in the snow.\n")
    entry = {"instance_prompt": "photo of a <new1> cat", "class_prompt": "cat", "prompt_filename": "prompts/cat.txt"}
    entries = [{**entry, "instance_data_dir": f"./benchmark_dataset/pet_cat{number}"} for number in (1, 2)]
    (custom / "dataset.json").write_text(json.dumps(entries))
    (cat,) = open_sequence(str(custom)).concepts  # the other's photos were not downloaded
    assert "without a folder of photos are passed over: pet_cat2 (1)" in caplog.text
    assert (cat.name, cat.class_noun, len(cat.templates)) == ("pet_cat1", "cat", 2)


def test_things_and_styles_are_asked_for_as_such() -> None:
    lora, members, world = method_from("lora"), open_sequence("world-10").concepts, PROMPTS["world"]

    def prompts_of(one: ConceptSpec) -> EvalPrompts:
        name = lora.prompt_name(one.name, one.class_noun)
        return concept_prompts(name, one.class_noun, world, 20, kind=one.kind, templates=one.templates)

    things, styles = prompts_of(members[0]), prompts_of(members[-1])
    nouns = {one.name: one.class_noun for one in members if one.kind == "thing"}
    assert len(things.prompts) == len(styles.words) == 20
    assert all("<dog1> dog" in prompt for prompt in things.prompts)
    assert all(prompt.endswith("in <ink> style") for prompt in styles.prompts)
    assert not any("<" in text for text in [*things.words, *styles.words])
    for size in (2, 3, 4):
        sets = combinations(nouns, size)
        assert sets == combinations(dict(reversed(nouns.items())), size)  # whatever the order of learning
        assert len({frozenset(names) for names in sets}) == len(sets) == 4
        assert all(len({nouns[name] for name in names}) == size for names in sets)
        together = combined_prompts({name: f"<{name}>" for name in nouns}, nouns, world, 1)[sets[0]]
        assert together.prompts[0].count("<") == size and "<" not in together.words[0]
    assert combinations({"dog1": "dog"}, 2) == []


def test_all_photos_are_trained_on_and_scored_against_where_that_is_asked_for(three: Path) -> None:
    held, every = (open_sequence(str(three), hold_out) for hold_out in (True, False))
    for kept, whole in zip(held.concepts, every.concepts, strict=True):
        trained, references, held_out = whole.photos()
        assert trained is references and not held_out
        assert (whole.name, whole.class_noun, whole.kind) == (kept.name, kept.class_noun, kept.kind)
    assert [len(one.photos().trained.photos) for one in every.concepts] == [6, 2, 2]
    assert len(open_sequence("world-6", hold_out=False).concepts[0].photos().references.photos) == 5 + 16


def test_prompts_of_a_file_are_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("A <TOK>, in the forest\n\n  a {} in the snow \n")
    assert templates_from(file) == ("A {}, in the forest", "a {} in the snow")
    with pytest.raises(MnemonError, match="There is no file"):
        templates_from(tmp_path / "other.txt")
    file.write_text("\n")
    with pytest.raises(MnemonError, match="holds no evaluation prompt"):
        templates_from(file)


def test_a_copy_of_a_photo_that_is_trained_on_is_not_held_out(tmp_path: Path) -> None:
    images(tmp_path / "cat", 5)
    images(tmp_path / "mug", 4)
    for name, copies in (("cat", ("z0",)), ("mug", ("z0", "z1"))):
        for copy in copies:
            (tmp_path / name / f"{copy}.jpg").write_bytes((tmp_path / name / "00.jpg").read_bytes())
    cat, mug = (one.photos() for one in open_sequence(str(tmp_path)).concepts)
    assert (len(cat.trained.photos), len(cat.references.photos), cat.held_out) == (4, 1, True)
    assert mug.trained is mug.references and not mug.held_out  # both that would be held out are copies
