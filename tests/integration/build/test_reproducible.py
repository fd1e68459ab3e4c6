"""With SOURCE_DATE_EPOCH the same inputs give the same image, whichever engine builds it."""

from collections.abc import Callable

import pytest

from tests.golden.build.record import caller
from tests.support.builds import Built, base_tar, build
from tests.support.engine import Engine

DOCKERFILE = """FROM scratch AS base
ADD base.tar /
FROM base AS work
WORKDIR /w/deep
ENV A=b
COPY --chown=joe d ./d
RUN hostname > h; cat /etc/hostname > e; env | sort > v; uname -n > u; mkdir -p x/y && touch x/y/z && ln -s z x/y/l && ln h hard
RUN --network=none hostname > n; for i in $(seq 300); do echo $i > /w/f$i; done; rm -r d/gone
FROM base
COPY --from=work /w /w
WORKDIR /v
RUN <<EOT
hostname
cat /w/deep/n /w/deep/h /w/deep/e /w/deep/u
rm /w/f1
EOT
CMD ["sh"]
"""


def made(engine: Engine, time: int, **query: object) -> Built:
    """A build of files that were made at such a time."""
    files = {name: {"data": data, "mtime": time} for name, data in (("d", None), ("d/a", "a"), ("d/gone", None), ("d/gone/f", "x"))}
    files["base.tar"] = {"data": base_tar(), "mtime": time}  # type: ignore[dict-item]
    built = build(
        caller(engine.socket), {"Dockerfile": DOCKERFILE, **files}, nocache=1, buildargs={"SOURCE_DATE_EPOCH": "1600000000"}, **query
    )
    assert built.error == ""
    return built


@pytest.fixture(scope="module")
def other(_session_engines: Callable[..., Engine]) -> Engine:
    """An engine with another data root."""
    engine = _session_engines()
    engine.start()
    return engine


@pytest.mark.parametrize("query", [{"squash": 0}, {"squash": 1}, {"networkmode": "host"}], ids=["layers", "squashed", "host"])
def test_two_engines_make_the_same_image(engine: Engine, other: Engine, query: dict[str, object]) -> None:
    # the name is given to what --squash has made: the stream tells the image before it
    first = made(engine, 1_700_000_000, t="same", **query)
    second = made(other, 1_800_000_000, t="same", **query)
    assert "buildkitsandbox\n" * 5 in first.text
    documents = [one.request("GET", "/images/same/json")[1] for one in (engine, other)]
    assert documents[0]["RootFS"] == documents[1]["RootFS"]
    assert documents[0]["Id"] == documents[1]["Id"]
    assert first.image == second.image


def test_without_it_a_step_has_a_name_of_its_own(engine: Engine) -> None:
    text = "FROM scratch\nADD base.tar /\nRUN hostname\n"
    built = build(caller(engine.socket), {"Dockerfile": text, "base.tar": base_tar()}, nocache=1)
    assert built.error == ""
    running = built.text.partition("Running in ")[2][:12]
    assert f"\n{running}\n" in built.text
