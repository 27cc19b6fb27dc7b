"""Simple prompts with one or two constraints that a program can check, for small models: a task to practice following instructions on.

The rows have IFEval's columns (`key`, `instruction_id_list`, `kwargs`), so `accord.rewards.constraints` scores their answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accord.errors import ConfigError
from accord.types import Example, Message

_TRAIN_TOPICS = (
    "a river:water boat fish|a garden:flower plant sun|the moon:night sky light|a dog:tail bark walk|bread:flour warm slice|winter:snow cold coat|"
    "a train:track ticket window|the sea:wave salt sand|a library:book quiet page|music:song drum sound|a farm:cow field hay|a birthday:cake gift friend|"
    "rain:cloud umbrella wet|a mountain:peak climb rock|breakfast:egg milk toast|a school:teacher desk lesson|a bicycle:wheel road bell|"
    "a market:fruit price bag|the forest:tree path leaf|a clock:hour hand time|a painting:color brush wall|a bridge:stone cross river|"
    "football:ball goal team|a kitchen:pot spoon stove|a cat:fur nap mouse|the desert:sand heat camel|a hospital:nurse bed doctor|"
    "a letter:stamp paper ink|spring:bud green bird|a castle:tower king gate|coffee:cup bean morning|a beach:shell towel sun|an island:palm boat shore|"
    "a robot:metal arm machine|chess:king board move|an apple:red sweet seed|a taxi:driver street city|the stars:bright dark far|a baker:oven bread dough|"
    "a lake:swim calm duck|honey:bee sweet jar|a festival:dance light crowd|a lighthouse:lamp ship coast|sleep:dream pillow night|"
    "a camera:photo lens picture|a horse:saddle ride mane|tea:leaf hot cup|a village:house church well|a museum:art old visit|autumn:leaf wind harvest"
)
_HELD_OUT_TOPICS = (
    "a ship:sail captain deck|the sun:heat day bright|a bird:wing nest sing|cheese:milk goat slice|a volcano:lava smoke hot|summer:beach sun ice|"
    "an airport:plane flight gate|a violin:string bow tune|a zoo:lion cage visit|a picnic:basket grass lunch|a storm:thunder wind rain|"
    "a hotel:room key bed|soup:bowl spoon hot|a painter:brush color canvas|a park:bench tree walk|a spider:web leg fly|a subway:city train tunnel|"
    "a wedding:ring dress dance|an elephant:trunk big gray|a pencil:paper draw write|rice:bowl field grain|a waterfall:water rock loud|"
    "a shop:door price sell|a newspaper:story page news"
)
_REQUESTS = ("Write about {}.", "Tell me about {}.", "Describe {}.", "Say something about {}.", "Write a short text about {}.")
_END_WORDS = ("DONE", "END", "THANKS", "GOODBYE", "STOP")
_STARTS = ("Here is", "Let me tell you", "I think", "Once upon a time", "Did you know")
_NUMBERS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class _Constraint:
    """A sentence of the prompt and what a checker reads. `claims`: what it decides about an answer; two that share a claim never meet."""

    sentence: str
    id: str
    kwargs: dict[str, Any]
    claims: frozenset[str]


def _make(claims: str, id: str, build: Callable[[random.Random, list[str]], tuple[str, dict[str, Any]]]) -> Callable[..., _Constraint]:
    def made(draw: random.Random, words: list[str]) -> _Constraint:
        sentence, kwargs = build(draw, words)
        return _Constraint(sentence, id, kwargs, frozenset(claims.split()))

    return made


def _bullets(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    number = draw.choice(list(_NUMBERS))
    return f"Use exactly {_NUMBERS[number]} bullet points, each on its own line.", {"num_bullets": number}


def _numbered(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    number = draw.choice(list(_NUMBERS))
    return f"Make a numbered list with exactly {_NUMBERS[number]} items.", {"num_items": number}


def _keyword(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    word = draw.choice(words)
    return f'Use the word "{word}".', {"relation": "at least", "keyword": word, "frequency": 1}


def _keyword_twice(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    word = draw.choice(words)
    return f'Use the word "{word}" at least twice.', {"relation": "at least", "keyword": word, "frequency": 2}


def _forbidden(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    word = draw.choice(["the", "is", "and", *words])
    return f'Do not use the word "{word}".', {"forbidden_words": [word]}


def _few_words(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    number = draw.choice([12, 15, 20, 30])
    return f"Answer in fewer than {number} words.", {"relation": "less than", "num_words": number}


def _many_words(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    number = draw.choice([20, 30, 40])
    return f"Use at least {number} words.", {"relation": "at least", "num_words": number}


def _sentences(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    number = draw.choice([1, 2, 3])
    return f"Write exactly {('one sentence', 'two sentences', 'three sentences')[number - 1]}.", {
        "relation": "exactly",
        "num_sentences": number,
    }


def _last_word(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    word = draw.choice(_END_WORDS)
    return f"End with the word {word}.", {"last_word": word}


def _start(draw: random.Random, words: list[str]) -> tuple[str, dict[str, Any]]:
    phrase = draw.choice(_STARTS)
    return f'Begin with "{phrase}".', {"start_phrase": phrase}


_KINDS = (
    _make("list length", "detectable_format:number_bullet_lists", _bullets),
    _make("list length", "detectable_format:numbered_list", _numbered),
    _make("words", "keywords:whole_word_frequency", _keyword),
    _make("words", "keywords:whole_word_frequency", _keyword_twice),
    _make("words start", "keywords:forbidden_words", _forbidden),
    _make("length list", "length_constraints:number_words", _few_words),
    _make("length list", "length_constraints:number_words", _many_words),
    _make("length list end start", "length_constraints:number_sentences", _sentences),
    _make("end quotes", "startend:last_word", _last_word),
    _make("start list quotes", "startend:start_phrase", _start),
    _make("case", "change_case:uppercase", lambda draw, words: ("Answer in capital letters only.", {})),
    _make("case", "change_case:lowercase", lambda draw, words: ("Use only lower case letters, no capitals.", {})),
    _make("comma", "punctuation:no_comma", lambda draw, words: ("Do not use any commas.", {})),
    _make("quotes start end list", "startend:quotation", lambda draw, words: ("Put your whole answer in double quotation marks.", {})),
    _make("end", "startend:end_mark", lambda draw, words: ("End with a question mark.", {"mark": "?"})),
    _make("end", "startend:end_mark", lambda draw, words: ("End with an exclamation mark.", {"mark": "!"})),
    _make(
        "title start list", "detectable_format:title", lambda draw, words: ("Add a title in double angular brackets, like <<title>>.", {})
    ),
)


def topics(*, held_out: bool) -> list[str]:
    """What the prompts are about. True: the topics of held-out prompts. False: those of training prompts; no topic is in both."""
    return [entry.split(":")[0] for entry in (_HELD_OUT_TOPICS if held_out else _TRAIN_TOPICS).split("|")]


def constraint_prompts(count: int, seed: int, *, held_out: bool = False, most_constraints: int = 2) -> list[Example]:
    """Prompts with one or two constraints, no two prompts alike.

    Args:
        count: how many, at most a few thousand: there are only so many different ones.
        seed: decides all of them; a longer list with the same seed begins with the shorter one.
        held_out: True: about the held-out topics. False: about the training topics.
        most_constraints: 1 or 2; with 2, half of the prompts have two.
    Returns:
        Examples of kind "prompt" whose columns are `key`, `instruction_id_list`, `kwargs`, `topic`.
    Raises:
        ConfigError: if the arguments are out of range or there are fewer different prompts.
    """
    if count < 1 or most_constraints not in (1, 2):
        raise ConfigError(f"constraint_prompts needs count >= 1 and most_constraints 1 or 2, and was given {count} and {most_constraints}.")
    entries = [entry.split(":") for entry in (_HELD_OUT_TOPICS if held_out else _TRAIN_TOPICS).split("|")]
    draw = random.Random(f"accord constraint prompts {seed} {held_out} {most_constraints}")
    found: dict[str, Example] = {}
    repeated = 0
    while len(found) < count:
        if repeated > 1000:  # in a row
            raise ConfigError(f"There are not {count} different prompts of this kind ({len(found)} were found). Ask for fewer.")
        topic, words = draw.choice(entries)
        made = [draw.choice(_KINDS)(draw, words.split())]
        if most_constraints == 2 and draw.random() < 0.5:
            second = draw.choice(_KINDS)(draw, words.split())
            while second.claims & made[0].claims:
                second = draw.choice(_KINDS)(draw, words.split())
            made.append(second)
        text = " ".join([draw.choice(_REQUESTS).format(topic), *(constraint.sentence for constraint in made)])
        if text in found:
            repeated += 1
            continue
        repeated = 0
        columns = {
            "key": len(found),
            "instruction_id_list": [constraint.id for constraint in made],
            "kwargs": [constraint.kwargs for constraint in made],
            "topic": topic,
        }
        found[text] = Example(
            "prompt", (Message("user", text),), plain=True, columns=columns, where=f"constraint prompt {len(found)} of seed {seed}"
        )
    return list(found.values())
