# ruff: noqa: RUF001 (text in other scripts)
"""Loading of pipelines, detection of languages that are not English, and analysis by rule."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import spacy

from omnitrace_core.errors import ConfigError
from omnitrace_core.text.analysis import ANY_WORD, PUNCT, TextAnalysis, analyse_by_rule
from omnitrace_core.text.english import reason_not_english
from omnitrace_core.text.language import Language, load_language

ENGLISH = "The picture shows a man who crosses the street with a dog, and it is raining."
FRENCH = "La voiture est dans la rue et les enfants jouent avec le chien pour une heure."
GERMAN = "Der Hund ist auf der Straße und die Kinder spielen mit einem Ball, aber nicht lange."
SPANISH = "El perro está en la calle y los niños juegan con una pelota que es de su padre."
POLISH = "Później wróciliśmy wszyscy razem późnym wieczorem, śpiewając głośno góralskie pieśni."
VIETNAMESE = "Hôm nay trời đẹp quá, chúng tôi đi dạo quanh hồ rồi uống cà phê."
CHINESE = "我们去公园。今天天气很好，你呢？"


@pytest.fixture(scope="module")
def blank() -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return Language("blank", nlp)


def sentences(text: str, analysis: TextAnalysis) -> list[str]:
    ends = (*analysis.sentence_starts[1:], len(text))
    pairs = zip(analysis.sentence_starts, ends, strict=True)
    return [text[start:end].strip() for start, end in pairs]


@pytest.mark.parametrize("text", [FRENCH, GERMAN, SPANISH, POLISH, VIETNAMESE, CHINESE])
def test_other_languages_are_detected(text: str) -> None:
    assert reason_not_english(text) != ""


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        "",
        "12:30, 15 %",
        "👍👍",
        "Sword, axe, gun, spear, bow, arrow, shield, lance, club, dagger",
        "Las Vegas, Los Angeles, San Jose, El Paso and La Mesa are far from the sea.",
        "Café Zoë serves crème brûlée, jalapeño poppers, piña coladas and it is the best.",
        "Où est le chat ?",  # French, but too short to decide
        "She said 'la vie est belle' and that the French for dog is 'le chien'.",
    ],
)
def test_in_doubt_a_text_is_english(text: str) -> None:
    assert reason_not_english(text) == ""


def test_the_script_of_most_letters_decides() -> None:
    assert reason_not_english("The word 你好 means hello.") == ""
    assert "not Latin" in reason_not_english("你好 hi 我们去公园")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CHINESE, ["我们去公园。", "今天天气很好，你呢？"]),
        ("走吧!我们走。", ["走吧!", "我们走。"]),
        ("他说：“好的。”然后走了。", ["他说：“好的。”", "然后走了。"]),
        ("价格是3.5元。便宜！！真的？", ["价格是3.5元。", "便宜！！", "真的？"]),
        ("嗯……我不知道。", ["嗯……我不知道。"]),
        ("これはペンです。本ですか？", ["これはペンです。", "本ですか？"]),
        ("هذا كتاب. هل تفهم؟ نعم.", ["هذا كتاب.", "هل تفهم؟", "نعم."]),
        ("यह किताब है। क्या आप समझे? हाँ।", ["यह किताब है।", "क्या आप समझे?", "हाँ।"]),
        ("Это кот. Правда? Да!", ["Это кот.", "Правда?", "Да!"]),
        ("« Bonjour ! » dit-elle. Il pleut.", ["« Bonjour ! » dit-elle.", "Il pleut."]),
        ("¿Qué hora es? ¡Tarde!", ["¿Qué hora es?", "¡Tarde!"]),
        ("Am 3. Oktober kam Dr. Maier. Ja.", ["Am 3. Oktober kam Dr. Maier.", "Ja."]),
        ("Das ist z. B. gut.", ["Das ist z. B. gut."]),
        ("Yahoo! est là. Oui", ["Yahoo! est là.", "Oui"]),
        ("Voilà Node.JS. Oui", ["Voilà Node.JS.", "Oui"]),
    ],
)
def test_sentences_by_rule(text: str, expected: list[str]) -> None:
    assert sentences(text, analyse_by_rule(text, "")) == expected


def test_words_by_rule_get_one_tag_and_marks_another() -> None:
    text = "Le prix : 3,50 € — हिन्दी « ok »."
    analysis = analyse_by_rule(text, "why")
    tags = {text[word.start : word.end]: word.pos for word in analysis.words}
    assert analysis.note == "why"
    assert {mark for mark, pos in tags.items() if pos == PUNCT} == {":", ",", "—", "«", "»", "."}
    assert {pos for mark, pos in tags.items() if mark.isalnum()} == {ANY_WORD}
    assert tags["€"] == ANY_WORD
    covered = "".join(text[word.start : word.end] for word in analysis.words)
    assert covered == text.replace(" ", "")


def test_an_english_pipeline_analyses_other_languages_by_rule(blank: Language) -> None:
    analysis = blank.analyse(CHINESE)
    assert analysis.note.startswith("fallback: most letters are not Latin")
    assert {word.pos for word in analysis.words} == {ANY_WORD, PUNCT}
    assert blank.analyse(ENGLISH).note == ""


def test_other_pipelines_are_not_second_guessed() -> None:
    nlp = spacy.blank("xx")
    nlp.add_pipe("sentencizer")
    assert Language("xx", nlp).analyse(CHINESE).note == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is A. The clock runs.", ["It is A.", "The clock runs."]),
        (
            'Nine a.m. (This is early.) "He" slept.',
            ["Nine a.m.", "(This is early.)", '"He" slept.'],
        ),
        ("**Yes.** It is.", ["**Yes.**", "It is."]),
        ("Pets, e.g. The Cat, vs. The Dog.", ["Pets, e.g. The Cat, vs. The Dog."]),
        ("Dr. Theodor and J. Itoh.", ["Dr. Theodor and J. Itoh."]),
    ],
)
def test_words_that_start_sentences(text: str, expected: list[str]) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer", config={"punct_chars": ["?"]})
    assert sentences(text, Language("no stops", nlp).analyse(text)) == expected


def test_long_texts_are_analysed_in_pieces() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.max_length = 64
    text = "\n".join(f"Line {i} is here. It ends." for i in range(40)) + "\n" + "x" * 300
    analysis = Language("short", nlp).analyse(text)
    words = [text[word.start : word.end] for word in analysis.words]
    assert "".join(words) == "".join(text.split())
    assert words[:10] == ["Line", "0", "is", "here", ".", "It", "ends", ".", "Line", "1"]
    found = [sentence for sentence in sentences(text, analysis) if sentence]
    assert found[:80] == [s for i in range(40) for s in (f"Line {i} is here.", "It ends.")]
    assert list(analysis.sentence_starts) == sorted(set(analysis.sentence_starts))


def test_pipeline_that_cannot_be_loaded_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"spans.pipeline='no_such_pipeline'.*use builtin"):
        load_language("no_such_pipeline")
    (tmp_path / "meta.json").write_text("{not json")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_language(str(tmp_path))


def test_pipeline_without_tags_is_a_config_error(blank: Language, tmp_path: Path) -> None:
    blank.nlp.to_disk(tmp_path)
    with pytest.raises(ConfigError, match=r"components \['sentencizer'\].*token.pos_"):
        load_language(str(tmp_path))


def test_the_builtin_pipeline_tags_english() -> None:
    language = load_language("builtin")
    assert load_language("builtin") is language, "loaded once per process"
    text = "The red car stopped. Two dogs barked loudly at Anna."
    analysis = language.analyse(text)
    tags = {text[word.start : word.end]: word.pos for word in analysis.words}
    assert sentences(text, analysis) == ["The red car stopped.", "Two dogs barked loudly at Anna."]
    expected = {"The": "DET", "red": "ADJ", "car": "NOUN", "stopped": "VERB", "Two": "NUM"}
    expected |= {"dogs": "NOUN", "loudly": "ADV", "at": "ADP", "Anna": "PROPN", ".": "PUNCT"}
    assert {word: tags[word] for word in expected} == expected


@pytest.mark.slow
def test_a_batch_gives_the_same_analyses_as_one_by_one() -> None:
    alone, together = (Language("builtin", load_language("builtin").nlp) for _ in range(2))
    texts = [ENGLISH, FRENCH, "", "It rains. " * 400, ENGLISH, "word " * 30_000, "Is it? A. B."]
    together.analyse_batch(texts)
    for text in texts:
        assert together.analyse(text) == alone.analyse(text)
    assert together.analyse(ENGLISH) is together.analyse(ENGLISH), "it is cached"


@pytest.mark.slow
def test_a_batch_makes_no_text_be_analysed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    language = Language("builtin", load_language("builtin").nlp)
    texts = [f"Sentence {number} is here. " * 300 for number in range(150)]
    analysed: list[str] = []
    real: Callable[..., Any] = language.nlp.pipe

    def record(texts: Iterable[Any], *, as_tuples: bool = False, **options: Any) -> Any:
        batch = list(texts)
        # spaCy calls itself once more without the tuples.
        if as_tuples:
            analysed.extend(text for text, _ in batch)
        return real(batch, as_tuples=as_tuples, **options)

    monkeypatch.setattr(language.nlp, "pipe", record)
    language.analyse_batch(texts)
    assert len(analysed) > 50
    for text in texts:
        language.analyse(text)
    assert sorted(analysed) == sorted(texts)


def test_the_least_recently_used_analyses_are_dropped() -> None:
    language = Language("builtin", load_language("builtin").nlp, cache_chars=40)
    first, second, third = "The first.", "The second sentence.", "The third one of all."
    first_two = [language.analyse(text) for text in (first, second)]
    assert language.analyse(first) is first_two[0]
    language.analyse(third)
    assert language.analyse(first) is first_two[0], "it was used after the second"
    assert language.analyse(second) is not first_two[1]
    assert language.analyse(second) == first_two[1]


@pytest.mark.slow
def test_texts_are_analysed_without_torch() -> None:
    """In a new process, as this one has imported torch."""
    program = (
        "import sys; from omnitrace_core.text.language import load_language_without_torch as load;"
        "assert len(load('builtin').analyse('It rains.').words) == 3;"
        "assert 'torch' not in sys.modules; import torch; torch.ones(1)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_builtin_pipeline_can_be_loaded_by_path() -> None:
    path = Path(load_language("builtin").nlp.path or "")
    assert (
        load_language(str(path)).analyse("It rains.").words
        == load_language("builtin").analyse("It rains.").words
    )
