"""attach's output: a lossless reader of the segments. The keeper holds the container back rather than rotate away what was not sent.

wakeup = Wakeup()
reply = await keeper.follow(key, reader, True, None, wakeup.fd)     # before the start, so that nothing is missed
if reply["drained"]: wakeup.end(tuple(reply["pos"]))
async for chunk in attached_output(SegmentSource(settings["dir"], tuple(reply["pos"])), wakeup, lambda pos: keeper.progress(reader, pos)):
    await stream.send(chunk)
# on the keeper's event {"event": "drained", "key", "pos"}: wakeup.end(tuple(pos));  finally: keeper.unfollow(reader), wakeup.close()
"""

from collections.abc import AsyncIterator, Callable

from sampan.logs.frames import encode
from sampan.logs.segments import SegmentSource
from sampan.logs.wakeup import Wakeup, no_action
from sampan.runtime.logframe import Position


async def attached_output(
    source: SegmentSource,
    wakeup: Wakeup,
    progress: Callable[[Position], None],
    *,
    stdout: bool = True,
    stderr: bool = True,
    multiplexed: bool = True,
) -> AsyncIterator[bytes]:
    """Chunks as the client gets them (raw for a tty: multiplexed=False), until wakeup.end(); then source is closed.

    progress: what the consumer has taken.
    """
    wakeup.at_end(source.hold)
    try:
        while True:
            source.limit = wakeup.limit
            frames = source.read()
            if frames:
                chunk = encode(frames, stdout=stdout, stderr=stderr, multiplexed=multiplexed)
                if chunk:
                    yield chunk
                progress(source.position)
            elif wakeup.ended and wakeup.limit in (source.limit, None):
                return
            else:
                await wakeup.wait()
    finally:
        wakeup.at_end(no_action)
        source.close()
