r"""Marks in prompts: what they mean, what stays text, what is nearly right."""

import warnings

import pytest

from mnemon.errors import MnemonError
from mnemon.models.prompt_syntax import escape, parse_prompt
from mnemon.models.weighted_prompt import WeightedPrompt, strengths_in, weight_at

KNOWN = ["rex", "tom-2"]


def read(prompt: str) -> tuple[str, dict[str, float]]:
    """The text, and each of its stretches that has a weight."""
    made = parse_prompt(prompt, KNOWN)
    weights = made.weights if isinstance(made, WeightedPrompt) else ()
    return str(made), {made[start:end]: round(weight, 4) for start, end, weight in weights}


@pytest.mark.parametrize(
    ("prompt", "text", "weights"),
    [
        ("a (red:1.3) dog", "a red dog", {"red": 1.3}),
        ("a (red) dog", "a red dog", {"red": 1.1}),
        ("a ((red)) dog", "a red dog", {"red": 1.21}),
        ("a (((red))) dog", "a red dog", {"red": 1.331}),
        ("a [red] dog", "a red dog", {"red": 0.9091}),
        ("a [[red]] dog", "a red dog", {"red": 0.8264}),
        ("a ([red]) dog", "a red dog", {}),
        ("(a (red:1.2) dog:0.5)", "a red dog", {"a ": 0.5, "red": 0.6, " dog": 0.5}),
        ("(a (red) dog)", "a red dog", {"a ": 1.1, "red": 1.21, " dog": 1.1}),
        ("(red dog:1.5), (snow : 0.5)", "red dog, snow ", {"red dog": 1.5, "snow ": 0.5}),
        ("(red:.5) (dog:2.) (cat:-1) (mug:+1.2)", "red dog cat mug", {"red": 0.5, "dog": 2, "cat": -1, "mug": 1.2}),
        ("(red:0)(dog:1.0)", "reddog", {"red": 0.0}),
        ("(<rex> dog:1.3)", "<rex> dog", {"<rex> dog": 1.3}),
        ("(<Rex>)", "<Rex>", {"<Rex>": 1.1}),
        (r"a dog \(toy\) \[x\]", "a dog (toy) [x]", {}),
        (r"(a \(toy\):1.3)", "a (toy)", {"a (toy)": 1.3}),
        (r"a \\ b d\g", "a \\ b d\\g", {}),
        ("ratio 16:9, at 10:30", "ratio 16:9, at 10:30", {}),
        ("(", "(", {}),
        ("a dog :)", "a dog :)", {}),
        ("a (red dog", "a (red dog", {}),
        ("a ((red) dog", "a (red dog", {"red": 1.1}),
        ("a red] dog)", "a red] dog)", {}),
        ("a red dog:1.3)", "a red dog:1.3)", {}),
        ("()[] (:1.3)", " ", {}),
        ("", "", {}),
        ("i <3 dogs, a < b, <|endoftext|> <> 🐶\n犬", "i <3 dogs, a < b, <|endoftext|> <> 🐶\n犬", {}),
    ],
)
def test_weights_of_words(prompt: str, text: str, weights: dict[str, float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read(prompt) == (text, weights)


@pytest.mark.parametrize(
    ("prompt", "text", "strengths"),
    [
        ("a <rex:0.8> dog", "a <rex> dog", {"rex": 0.8}),
        ("<REX:.5>", "<REX>", {"rex": 0.5}),
        ("<rex:-0.5> <tom-2:2>", "<rex> <tom-2>", {"rex": -0.5, "tom-2": 2.0}),
        ("<rex: 0.8 >", "<rex>", {"rex": 0.8}),
        ("<rex:0> and <rex>", "<rex> and <rex>", {"rex": 0.0}),
        ("<rex:0.5> <rex:.50>", "<rex> <rex>", {"rex": 0.5}),
        ("<rex:1> dog", "<rex> dog", {}),
        ("<rex>dog", "<rex>dog", {}),
    ],
)
def test_strengths_of_concepts(prompt: str, text: str, strengths: dict[str, float]) -> None:
    made = parse_prompt(prompt, KNOWN)
    assert str(made) == text and strengths_in(made) == strengths


@pytest.mark.parametrize("prompt", ["a photo of <rex> dog in the snow", "", "<Rex>, 16:9 <|endoftext|>", "d\\g"])
def test_a_prompt_without_marks_is_the_same_string(prompt: str) -> None:
    made = parse_prompt(prompt, KNOWN)
    assert type(made) is str and made == prompt


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a < rex > dog", "has '< rex >', which is no concept's token: did you mean <rex>?"),
        ("a <rex > dog", "did you mean <rex>?"),
        ("a < rex:0.5> dog", "did you mean <rex:0.5>?"),
        ("a dog <lora:rex:0.5>", "has '<lora:rex:0.5>', which is no concept's token: did you mean <rex:0.5>?"),
        ("<lora:rex>", "did you mean <rex>?"),
        ("<LyCO:rex:1>", "did you mean <rex:1>?"),
        ("<embedding:rex>", "did you mean <rex>?"),
        ("<lora:add_detail:1>", "names <lora:add_detail:1>, which is not known"),
        ("embedding:rex dog", "has 'embedding:rex', which is no concept's token: did you mean <rex>?"),
        ("(embedding:Rex:1.2)", "did you mean <rex>?"),
        ("<typo> dog", "names <typo>, which is not known. Known concepts: <rex>, <tom-2>."),
        ("<rexx> dog", "names <rexx>, which is not known. Did you mean <rex>?"),
        ("<tom2:0.5>", "Did you mean <tom-2>?"),
        ("<rex:abc>", "whose strength is no number: write <rex:0.8>"),
        ("<rex:>", "write <rex:0.8>"),
        ("<rex:0,8>", "did you mean <rex:0.8>?"),
        ("<rex:80%>", "write <rex:0.8>"),
        ("<rex:inf>", "write <rex:0.8>"),
        ("<rex:0.5:0.7>", "write <rex:0.8>"),
        ("<rex:0.5> <rex:0.6>", "two strengths"),
        ("a <rex dog", "has '<rex', which is no concept's token: did you mean <rex>?"),
        ("a rex> dog", "did you mean <rex>?"),
        ("a &lt;rex&gt; dog", "did you mean <rex>?"),
        ("a \N{FULLWIDTH LESS-THAN SIGN}rex\N{FULLWIDTH GREATER-THAN SIGN} dog", "did you mean <rex>?"),
        ("(red:1,3) dog", "whose weight is no number: did you mean '(...:1.3)'?"),
        ("(red:130%) dog", "whose weight is no number: write (word:1.3)"),
        ("(red:1.3.4) dog", "write (word:1.3)"),
        ("(red:100) dog", "gives words the weight 100"),
        ("((((red:5):5):5):5)", "gives words the weight 625"),
        ("(dog:1.1) (red:1,3)", "did you mean '(...:1.3)'?"),
        ("<rex:80> dog", "gives <rex> the strength 80, where 0 to 1.5 is usual"),
        ("<rex:-11>", "gives <rex> the strength -11"),
        ("<rex;0.8>", "has '<rex;0.8>', which is no concept's token: write <rex>, or <rex:0.8> for a strength"),
        ("<rex=0.8>", "write <rex>"),
        ("< Rex 0.8>", "write <rex>"),
        ("<tom-2-0.8>", "write <tom-2>"),
        ("<rex.safetensors>", "write <rex>"),
        ("<rex|tom-2>", "write <rex>"),
        ("[cat:dog:0.5]", "words that change while an image is sampled are not supported"),
        ("a [cat|dog]", "words that change"),
        ("[red:0.5] dog", "words that change"),
    ],
)
def test_what_is_nearly_right_says_what_was_meant(prompt: str, said: str) -> None:
    with pytest.raises(MnemonError) as raised:
        parse_prompt(prompt, KNOWN)
    assert said in str(raised.value) and prompt in str(raised.value)


def test_without_a_library_no_concept_is_known() -> None:
    with pytest.raises(MnemonError, match="names <rex>, which is not known. Known concepts: none yet."):
        parse_prompt("<rex>", ())


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a dog :)", r"has a '\)' without its other half.*write \(word:1.3\), for the character \\\)"),
        ("a (red dog", r"has a '\(' without"),
        ("a [red dog", r"has a '\[' without"),
        ("a red dog:1.3)", r"has a '\)' without"),
        ("a dog AND a cat", "has 'AND', a mark of other tools"),
        ("a dog BREAK a cat", "has 'BREAK'"),
        ("a red++ dog", r"has 'd\+\+'"),
        ("a (red)1.5 dog", r"has '\)1.5'"),
        ("a {red|blue} dog", r"has '\{red\|blue\}'"),
        (
            "\N{FULLWIDTH LEFT PARENTHESIS}red:1.2\N{FULLWIDTH RIGHT PARENTHESIS} dog",
            "has ':1.2.', a mark of other tools",
        ),
        ("(red\N{FULLWIDTH COLON}1.2) dog", "1.2.', a mark of other tools"),
        ("a {{red}} dog", r"has '\{\{'"),
        ("a __colour__ dog", "has '__colour__'"),
        ("embedding:bad-hands", "has 'embedding:bad-hands'"),
    ],
)
def test_what_stays_text_is_said(prompt: str, said: str) -> None:
    with pytest.warns(UserWarning, match=said):
        parse_prompt(prompt, KNOWN)


@pytest.mark.parametrize("prompt", ["A DOG AND A CAT", "a well-known dog -- or two", "[photo: 35mm]", "a dog (toy)"])
def test_plain_language_is_no_reason_to_warn(prompt: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_prompt(prompt, KNOWN)


@pytest.mark.parametrize("text", ["dog (toy)", "(a:1.3)", r"d\g \(x", "[a|b] ]", "plain"])
def test_what_is_escaped_is_said_as_it_stands(text: str) -> None:
    made = parse_prompt(escape(text), KNOWN)
    assert type(made) is str and made == text


def test_prompts_are_told_apart_by_their_weights() -> None:
    one, other, plain = (parse_prompt(text, KNOWN) for text in ("(dog:1.3)", "(dog:1.2)", "dog"))
    assert str(one) == str(other) == plain and len({one, other, plain, parse_prompt("(dog:1.3)", KNOWN)}) == 3
    assert one != plain and plain != one and one == parse_prompt("(dog:1.30)", KNOWN)
    assert [weight_at(one, place) for place in (-1, 0, 2, 3)] == [1, 1.3, 1.3, 1] and weight_at(plain, 0) == 1
