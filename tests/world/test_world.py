"""The built-in world: images from a seed, true captions, ground truth, an endless supply of concepts."""

import numpy as np
import pytest

from mnemon.data import concept_from_folder
from mnemon.world.backgrounds import BACKGROUNDS
from mnemon.world.captions import caption, describe, vocabulary
from mnemon.world.concepts import style_concept, thing_concept
from mnemon.world.looks import COLOURS, PATTERNS, free_look, neighbour, palette_look
from mnemon.world.scenes import SIZE, Pose, Scene, random_scene, render, single_pose
from mnemon.world.styles import FAMILIES, apply_style, random_style
from mnemon.world.things import NOUNS


def scene_of(look, seed=0, style=None):
    return Scene((look,), (Pose(32, 34, 22),), "in the meadow", seed, style)


def test_the_world_is_as_rich_as_promised():
    assert len(NOUNS) >= 12 and len(COLOURS) >= 10 and len(PATTERNS) >= 4 and len(BACKGROUNDS) >= 8


def test_a_seed_gives_the_same_image_again_and_another_seed_another():
    one, again, other = (render(random_scene(np.random.default_rng(seed))).pixels for seed in (5, 5, 6))
    assert one.shape == (SIZE, SIZE, 3) and one.dtype == np.uint8
    assert (one == again).all() and (one != other).any()


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_has_an_outline_of_its_own_inside_the_image(noun):
    look = palette_look(np.random.default_rng(0), noun)
    mask = render(scene_of(look)).masks[0] > 0.5
    others = [render(scene_of(palette_look(np.random.default_rng(0), other))).masks[0] > 0.5 for other in NOUNS]
    overlaps = [(mask & other).sum() / (mask | other).sum() for other in others]
    assert sorted(overlaps)[-2] < 0.9  # the last is itself
    assert 0.05 < mask.mean() < 0.6


@pytest.mark.parametrize("noun", NOUNS)
def test_shape_parameters_change_the_outline(noun):
    rng = np.random.default_rng(1)
    one, two = (render(scene_of(free_look(rng, noun))).masks[0] for _ in range(2))
    assert (one != two).any()


def test_boxes_hold_their_masks():
    rng = np.random.default_rng(3)
    scene = next(s for s in (random_scene(rng, pair=1.0) for _ in range(5)))
    drawn = render(scene)
    assert len(drawn.masks) == len(drawn.boxes) == 2
    for mask, (left, top, right, bottom) in zip(drawn.masks, drawn.boxes, strict=True):
        rows, columns = np.where(mask > 0.5)
        assert left <= columns.min() and columns.max() < right and top <= rows.min() and rows.max() < bottom


def test_captions_say_only_what_is_true_and_leave_things_out():
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(200):
        scene = random_scene(rng)
        words = caption(scene, rng).split()
        lengths.add(len(words))
        said = {word for word in words if word in NOUNS}
        assert said == {look.noun for look in scene.looks}
        named = {colour for look in scene.looks for colour in (look.colour, look.accent) if colour}
        assert {word for word in words if word in COLOURS} <= named
        assert set(words) <= set(vocabulary())
    assert len(lengths) > 8


def test_articles_agree():
    look = palette_look(np.random.default_rng(0), "car")
    text = describe(look, pattern=False, accent=False)
    assert text.startswith("an " if look.colour == "orange" else "a ")


def test_free_looks_are_off_the_palette():
    rng = np.random.default_rng(0)
    for _ in range(50):
        body = np.array(free_look(rng).body)
        assert min(np.linalg.norm(body - np.array(colour)) for colour in COLOURS.values()) > 0.1


def test_neighbours_come_as_near_as_one_likes():
    look = free_look(np.random.default_rng(0), "cat")
    distances = []
    for distance in (0.0, 0.1, 0.4):
        other = neighbour(look, np.random.default_rng(1), distance)
        assert other.noun == "cat"
        distances.append(float(np.linalg.norm(np.array(other.body) - np.array(look.body))))
    assert distances[0] == 0 and distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_styles_redraw_everything(family):
    plain = render(scene_of(free_look(np.random.default_rng(0), "fish"))).pixels.astype(np.float32) / 255
    styled = apply_style(plain, random_style(np.random.default_rng(0), family))
    assert styled.shape == plain.shape and np.isfinite(styled).all()
    assert np.abs(np.clip(styled, 0, 1) - plain).mean() > 0.02


def test_concepts_are_an_endless_seeded_supply():
    one, again, other = thing_concept("a", 1), thing_concept("a", 1), thing_concept("a", 2)
    assert one == again and one.look != other.look
    assert thing_concept("a", 1, "mug").class_noun == "mug"
    assert style_concept("ink", 1, "ink").class_noun is None


def test_photos_of_a_concept_show_one_thing_in_new_places():
    concept = thing_concept("rex", 3, "dog")
    photos = concept.photos(5, seed=0).photos
    assert len({photo.sha256 for photo in photos}) == 5
    assert len({photo.sha256 for photo in photos} & {p.sha256 for p in concept.photos(5, seed=1).photos}) == 0
    assert all("<rex>" in (photo.caption or "") for photo in photos)


def test_a_written_concept_reads_back_as_a_person_would_bring_it(tmp_path):
    concept = thing_concept("rex", 3, "dog")
    concept.write(tmp_path / "rex", 3, seed=0)
    read = concept_from_folder(tmp_path / "rex", class_noun="dog")
    made = concept.photos(3, seed=0)
    assert [photo.caption for photo in read.photos] == [photo.caption for photo in made.photos]
    assert all(a.image.tobytes() == b.image.tobytes() for a, b in zip(read.photos, made.photos, strict=True))


def test_single_things_stand_large_near_the_centre():
    rng = np.random.default_rng(0)
    for _ in range(50):
        pose = single_pose(rng)
        assert abs(pose.x - 32) <= 5 and pose.size >= 19
