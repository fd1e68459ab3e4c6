"""What a stage says, told at once and by step: for our own command line, which draws steps that run side by side (`steps=1`)."""

from collections.abc import Mapping

from sampan.engine.buildstage import Output
from sampan.engine.lines import Lines
from sampan.engine.progress import Progress


class StepTelling(Output):
    """Every line has `step` with the step's `id`. Of its own are those with `state`: started (with stage, place, of, text), done, cached
    or failed; and those with `output`: what a RUN writes.
    """

    def __init__(self, lines: Lines, stage: str, first: int, of: int) -> None:
        """stage: its name. first: the number of its first step. of: how many it has."""
        super().__init__()
        self._out = lines
        self._stage, self._first, self._of = stage, first, of
        self._id = 0
        self._state = "done"

    def _step(self, more: Mapping[str, object]) -> None:
        self._out.say({"step": {"id": self._id, **more}})

    def begin(self, number: int, total: int, text: str) -> None:
        """See Output."""
        self._id, self._state = number, "done"
        self._step({"state": "started", "stage": self._stage, "place": number - self._first + 1, "of": self._of, "text": text})

    def cached(self) -> None:
        """See Output."""
        self._state = "cached"

    def end(self, image: str) -> None:
        """See Output."""
        self._step({"state": self._state})

    def fail(self) -> None:
        """See Output."""
        self._step({"state": "failed"})

    def put(self, line: Progress) -> None:
        """See Output. Bars are left out when nobody reads."""
        self._out.say({**line, "step": {"id": self._id}}, once=not line.get("progressDetail"))

    async def tell(self, text: str) -> None:
        """See Output."""
        await self._out.drained()
        self._step({"output": text})
