"""What stages say, told at once and by step: for our own command line, which draws steps that run side by side (`steps=1`)."""

from collections.abc import Mapping

from sampan.engine.buildstage import Output
from sampan.engine.lines import Lines
from sampan.engine.progress import Progress


class BuildTelling:
    """The steps of a build. A line with `plan` tells how many there are, once more when there are more."""

    def __init__(self, lines: Lines, first: int, last: int) -> None:
        """first, last: the numbers of the steps of all stages."""
        self.lines = lines
        self._next, self._before, self._last = first, first - 1, last
        self._tell()

    def _tell(self) -> None:
        self.lines.say({"plan": {"steps": self._last - self._before}})

    def stage(self, name: str, steps: int) -> "StepTelling":
        """The next stage, whose steps are numbered on."""
        first = self._next
        self._next += steps
        return StepTelling(self, name, first, steps)

    def late(self, name: str, first: int, steps: int) -> "StepTelling":
        """A stage that comes to the others, its own first step so numbered. Its steps' ids follow the last one's."""
        shift = self._last + 1 - first
        self._last += steps
        self._tell()
        return StepTelling(self, name, first, steps, shift)


class StepTelling(Output):
    """Every line has `step` with the step's `id`. Of its own are those with `state`: started (with stage, place, of, text), done, cached
    or failed; and those with `output`: what a RUN writes.
    """

    def __init__(self, build: BuildTelling, stage: str, first: int, of: int, shift: int = 0) -> None:
        """stage: its name. first: the number of its first step. of: how many it has. shift: from a step's number to its id."""
        super().__init__()
        self._build, self._out = build, build.lines
        self._stage, self._first, self._of, self._shift = stage, first, of, shift
        self._id = 0
        self._state = "done"
        self._runs = False
        self._late: list[StepTelling] = []

    def _step(self, more: Mapping[str, object]) -> None:
        self._out.say({"step": {"id": self._id, **more}})

    def begin(self, number: int, total: int, text: str) -> None:
        """See Output."""
        self._id, self._state, self._runs = number + self._shift, "done", True
        self._step({"state": "started", "stage": self._stage, "place": number - self._first + 1, "of": self._of, "text": text})

    def late(self, name: str, first: int, steps: int) -> Output:
        """See Output."""
        self._late.append(self._build.late(name, first, steps))
        return self._late[-1]

    def cached(self) -> None:
        """See Output. A FROM has many steps of its own where its base has triggers, and they need not all be there."""
        if self._id - self._shift != self._first:
            self._state = "cached"

    def end(self, image: str) -> None:
        """See Output."""
        self._runs = False
        self._step({"state": self._state})

    def fail(self) -> None:
        """See Output."""
        for late in self._late:
            late.fail()
        if self._runs:
            self._runs = False
            self._step({"state": "failed"})

    def put(self, line: Progress) -> None:
        """See Output. Bars are left out when nobody reads."""
        self._out.say({**line, "step": {"id": self._id}}, once=not line.get("progressDetail"))

    async def tell(self, text: str) -> None:
        """See Output."""
        await self._out.drained()
        self._step({"output": text})
