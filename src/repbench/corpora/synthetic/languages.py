"""Sentences of one form in three languages, spoken by every speaker: the language is independent of the voice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from repbench.corpora.contract import Split
from repbench.corpora.synthetic.conditions import CorpusSize, generator_for
from repbench.corpora.synthetic.content import Content
from repbench.corpora.synthetic.voices import ENGLISH


class Vocabulary(NamedTuple):
    """The four parts of a sentence of a language; equal places in two languages mean the same."""

    subjects: Sequence[str]
    verbs: Sequence[str]
    objects: Sequence[str]
    places: Sequence[str]


VOCABULARIES: Mapping[str, Vocabulary] = {
    ENGLISH: Vocabulary(
        ("the teacher", "the doctor", "my brother", "our neighbour", "the judge", "the farmer", "her father",
         "the baker", "your uncle", "the woman", "the child", "a friend"),
        ("sees", "buys", "draws", "seeks", "finds", "shows", "paints", "loves"),
        ("the house", "the garden", "a book", "the bridge", "a letter", "the boat", "a chair", "the machine",
         "a picture", "the coffee", "a jacket", "the village"),
        ("in the city", "by the river", "on the beach", "after school", "at night", "in winter", "on the mountain",
         "before noon"),
    ),
    "de": Vocabulary(
        ("der Lehrer", "der Arzt", "mein Bruder", "unser Nachbar", "der Richter", "der Bauer", "ihr Vater",
         "der Bäcker", "dein Onkel", "die Frau", "das Kind", "ein Freund"),
        ("sieht", "kauft", "zeichnet", "sucht", "findet", "zeigt", "malt", "liebt"),
        ("das Haus", "den Garten", "ein Buch", "die Brücke", "einen Brief", "das Boot", "einen Stuhl", "die Maschine",
         "ein Bild", "den Kaffee", "eine Jacke", "das Dorf"),
        ("in der Stadt", "am Fluss", "am Strand", "nach der Schule", "in der Nacht", "im Winter", "auf dem Berg",
         "vor dem Mittag"),
    ),
    "es": Vocabulary(
        ("el maestro", "el médico", "mi hermano", "nuestro vecino", "el juez", "el campesino", "su padre",
         "el panadero", "tu tío", "la mujer", "el niño", "un amigo"),
        ("ve", "compra", "dibuja", "busca", "encuentra", "muestra", "pinta", "quiere"),
        ("la casa", "el jardín", "un libro", "el puente", "una carta", "el barco", "una silla", "la máquina",
         "un cuadro", "el café", "una chaqueta", "el pueblo"),
        ("en la ciudad", "junto al río", "en la playa", "después de la escuela", "por la noche", "en invierno",
         "en la montaña", "antes del mediodía"),
    ),
}  # fmt: skip

LANGUAGES = tuple(VOCABULARIES)

_TENTHS: Mapping[Split, range] = {"train": range(7), "dev": range(7, 8), "test": range(8, 10)}


class Languages:
    """The sentences of one split: each speaker speaks the three languages in turn.

    The sum of the places of its parts in the vocabulary, modulo 10, gives a sentence its split: no sentence of one
    split occurs in another, in no language.
    """

    def __init__(self, split: Split, size: CorpusSize) -> None:
        del size
        self._tenths = _TENTHS[split]

    def draw(self, speaker: str, number: int) -> Content:
        """The sentence of utterance `number`."""
        draws = generator_for("languages", speaker, f"{number}")
        language = LANGUAGES[number % len(LANGUAGES)]
        vocabulary = VOCABULARIES[language]
        while True:
            places = [int(draws.integers(len(part))) for part in vocabulary]
            if sum(places) % 10 in self._tenths:
                break
        sentence = " ".join(part[place] for part, place in zip(vocabulary, places, strict=True))
        return Content(sentence.lower(), f"{sentence}.", {"language": language}, language)
