"""Names for containers whose user gave none: an adjective and a person of computing or science, as docker makes them."""

import random
import re
from collections.abc import Callable

VALID = re.compile(r"^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$")
ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"

_ADJECTIVES = ["able", "agile", "amber", "apt", "bold", "brave", "bright", "brisk", "calm", "clear", "clever", "cosy", "crisp", "eager", "easy", "fair", "fine", "fleet", "fond", "frank", "free", "fresh", "gentle", "glad", "good", "grand", "happy", "hardy", "keen", "kind", "light", "lively", "lucid", "merry", "mild", "neat", "nimble", "noble", "placid", "plain", "prompt", "proud", "quick", "quiet", "rapid", "ready", "rosy", "serene", "sharp", "shiny", "silver", "simple", "smart", "snug", "solid", "spry", "steady", "still", "sunny", "sweet", "swift", "tidy", "tranquil", "true", "vivid", "warm", "wise"]
_PEOPLE = ["allen", "babbage", "backus", "bardeen", "bartik", "blackwell", "boole", "borg", "brahe", "cerf", "church", "codd", "cray", "curie", "dijkstra", "easley", "eckert", "engelbart", "euler", "faraday", "fermat", "feynman", "floyd", "franklin", "gauss", "goldberg", "hamilton", "hamming", "hertz", "hoare", "hopper", "hypatia", "jennings", "johnson", "karp", "kay", "keller", "kepler", "kernighan", "knuth", "lamport", "lamarr", "leibniz", "liskov", "lovelace", "lumiere", "maxwell", "mccarthy", "meitner", "mendel", "milner", "minsky", "naur", "neumann", "newton", "nightingale", "noether", "pasteur", "perlman", "planck", "ritchie", "rivest", "sammet", "shannon", "stallman", "sutherland", "tarjan", "tesla", "thompson", "torvalds", "turing", "tu", "wilkes", "wilson", "wing", "wirth", "wozniak", "wu", "zhang", "zuse"]


def made_up_name(taken: Callable[[str], bool]) -> str:
    """A free name; digits are added when the plain ones are used up."""
    while True:
        for suffix in ("", "", "", "", str(random.randrange(10)), str(random.randrange(10_000))):
            name = f"{random.choice(_ADJECTIVES)}_{random.choice(_PEOPLE)}{suffix}"
            if not taken(name):
                return name
