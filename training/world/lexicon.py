"""The words of the planted world. Each is one word, so that a tokenizer can give it one token."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    """
    Anna Boris Cara David Elena Felix Greta Hugo Irene Jonas Karin Leo Mona Nils Olga Peter
    Quinn Rosa Simon Tara Ulrich Vera Walter Yara
    """
)
OBJECTS = _words(
    """
    lamp key cup book coat hat ball box map pen knife plate chair clock candle basket bottle
    brush bucket camera drum fork glove guitar hammer helmet jar kettle ladder letter mirror
    needle pillow radio ring rope scarf shovel spoon umbrella
    """
)
PLACES = _words(
    """
    kitchen hall garden attic cellar garage office library bedroom bathroom balcony porch shed
    barn tower chapel school station market harbour forest meadow bakery museum theatre castle
    bridge tunnel stable mill hotel cafe bank clinic studio factory stadium palace pharmacy
    cottage
    """
)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 170, 60),
    "blue": (40, 70, 220),
    "yellow": (240, 210, 40),
    "purple": (140, 50, 170),
    "orange": (245, 140, 30),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
SHAPES = ("circle", "square", "triangle", "cross")
SOUNDS = _words("bell horn whistle buzzer siren click chirp hum gong rattle")
NUMBERS = _words("zero one two three four five six seven eight nine ten eleven twelve")
LETTERS = "ABCD"
