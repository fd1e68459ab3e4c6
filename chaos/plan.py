"""What is done, and what goes wrong meanwhile: drawn from a seed and from nothing else, so that a seed is a run that can be had again."""

import random
from collections.abc import Iterator

import msgspec

SLOTS = tuple(f"box{number}" for number in range(10))
KILLS = (("sampand",), ("keeper",), ("supervisor",), ("sampand", "keeper"), ("sampand", "supervisor"), ("keeper", "supervisor"))
"""Any two of the three may be killed at once."""
FROZEN = ((), (), (), *KILLS)
CHOICES = {
    "absent": ("run", "run", "run", "create"),
    "created": ("start", "rm"),
    "running": ("exec", "exec", "logs", "copy", "commit", "top", "update", "connect", "restart", "pause", "stop", "kill", "die", "remove"),
    "paused": ("unpause", "remove"),
    "exited": ("start", "logs", "rm"),
    "doubtful": ("remove",),
}
"""What may be done to a container by the state it must be in. Doubtful: something went wrong while something was done to it."""
AFTER = {
    "create": "created", "start": "running", "rm": "absent", "restart": "running", "pause": "paused", "unpause": "running",
    "stop": "exited", "kill": "exited", "remove": "absent", "run": "running",
}  # fmt: skip
ALONE = ("once", "pull", "build", "network", "volume", "look", "prune")
"""What is done beside the containers, each with names of its own."""
JUMPS = (-86400.0, -3600.0, -5.0, 5.0, 3600.0, 86400.0)
DELAY_MAX = 0.6


class Action(msgspec.Struct, frozen=True):
    """One thing done. name: of the container, or a number of its own. always: the container's restart policy."""

    kind: str
    name: str
    options: tuple[str, ...] = ()
    always: bool = False


class Trouble(msgspec.Struct, frozen=True):
    """What goes wrong: processes of ours killed or sampand stopped `after` seconds, also on a full disk, another time.

    frozen: those that stood still for the last part of these seconds before the others were killed.
    """

    kind: str
    roles: tuple[str, ...] = ()
    after: float = 0.0
    frozen: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def excuses(self) -> bool:
        """Whether what is done meanwhile may fail."""
        return self.kind != "clock"


class Step(msgspec.Struct, frozen=True):
    """What is done at the same time."""

    number: int
    actions: tuple[Action, ...]
    trouble: Trouble | None

    def __str__(self) -> str:
        words = [f"{action.kind} {action.name}" + "".join(f" {option}" for option in action.options) for action in self.actions]
        trouble = self.trouble
        if trouble is not None:
            what = f"{trouble.kind} {'+'.join(trouble.roles)}".strip()
            words.append(f"!! {what}" + (f" {trouble.seconds:+.0f} s" if trouble.seconds else f" after {trouble.after:.2f} s"))
            if trouble.frozen:
                words[-1] += f", {'+'.join(trouble.frozen)} frozen before"
        return f"{self.number:4} " + "; ".join(words)


class Slot(msgspec.Struct):
    """What a container must be."""

    state: str = "absent"
    always: bool = False
    gaps: bool = False
    """Whether its log may lack lines: the disk was full."""


def steps(seed: int) -> Iterator[tuple[Step, dict[str, Slot]]]:
    """The steps of a seed, each with what must be once it is through: the same table each time."""
    chance = random.Random(seed)
    slots = {name: Slot() for name in SLOTS}
    number = 0
    while True:
        number += 1
        trouble = _trouble(chance)
        names = chance.sample(SLOTS, chance.choice((1, 1, 2, 3, 5)))
        actions = [_action(chance, name, slots[name]) for name in names]
        if chance.random() < 0.3:
            actions.append(Action(chance.choice(ALONE), f"n{number}"))
        for action in actions:
            _note(slots, action, doubtful=trouble is not None and trouble.excuses)
        if trouble is not None:
            _aftermath(slots, trouble)
        yield Step(number, tuple(actions), trouble), slots


def _trouble(chance: random.Random) -> Trouble | None:
    kind = chance.choices(("", "kill", "stop", "full", "clock"), (58, 24, 3, 9, 6))[0]
    if not kind:
        return None
    roles = chance.choice(KILLS) if kind == "kill" or (kind == "full" and chance.random() < 0.5) else ()
    frozen = chance.choice(FROZEN) if roles else ()
    return Trouble(kind, roles, chance.uniform(0, DELAY_MAX), frozen, chance.choice(JUMPS) if kind == "clock" else 0.0)


def _action(chance: random.Random, name: str, slot: Slot) -> Action:
    kind = chance.choice(CHOICES[slot.state])
    if kind not in ("run", "create"):
        return Action(kind, name, always=slot.always)
    always = chance.random() < 0.3
    options = [
        *(("--restart=always",) if always else ()),
        *chance.choice(((), (), ("-t",), ("-i",))),
        *chance.choice(((), ("-p", "127.0.0.1::80"), ("--network=host",), ("--network=none",), ("--network=chaos",))),
        *chance.choice(((), ("-v", "shared:/shared"), ("--tmpfs=/scratch",), ("-m", "64m"))),
        *chance.choice(((), ("--init",), ("--log-driver=json-file",), ("--health-cmd=true", "--health-interval=200ms"))),
    ]
    return Action(kind, name, tuple(options), always)


def _aftermath(slots: dict[str, Slot], trouble: Trouble) -> None:
    """What else has changed for the others. A policy `always` has what a user stopped started with the daemon, as docker does."""
    for slot in slots.values():
        if trouble.kind == "full":
            slot.gaps = True
        if (trouble.kind == "stop" or "sampand" in trouble.roles) and slot.state == "exited" and slot.always:
            slot.state = "running"


def _note(slots: dict[str, Slot], action: Action, *, doubtful: bool) -> None:
    slot = slots.get(action.name)
    if slot is None:
        return
    if action.kind in ("run", "create"):
        slot.always, slot.gaps = action.always, False
    if doubtful:
        slot.state = "doubtful"
    elif action.kind == "die":
        slot.state = "running" if slot.always else "exited"
    else:
        slot.state = AFTER.get(action.kind, slot.state)
