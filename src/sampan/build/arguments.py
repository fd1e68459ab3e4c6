"""ARG: which are seen where, and what they are worth (moby's BuildArgs, and BuildKit's arguments of the platform). Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from sampan.build.instructions import Arg

PROXIES: Final = frozenset(
    name for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY") for name in (upper, upper.lower())
)
"""May be given without being declared, are seen by every RUN, and are kept out of history and cache keys unless they are declared."""


def platform_arguments(target: str, build: str, stage: str = "") -> dict[str, str]:
    """What may be declared without a default: TARGETPLATFORM and its kin, of `os/architecture[/variant]`; `stage` is --target's."""
    values: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        system, _, rest = platform.partition("/")
        architecture, _, variant = rest.partition("/")
        values |= {
            f"{prefix}PLATFORM": platform,
            f"{prefix}OS": system,
            f"{prefix}ARCH": architecture,
            f"{prefix}VARIANT": variant,
        }
    return values | {"TARGETSTAGE": stage or "default"}


class Arguments:
    """The arguments of a whole build: `given` are the options (None: `--build-arg NAME` of a client that has no such variable)."""

    def __init__(self, given: Mapping[str, str | None], platform: Mapping[str, str]) -> None:
        self._given = given
        self._proxies = {name: value for name in PROXIES if (value := given.get(name)) is not None}
        self._platform = platform
        self._globals: dict[str, str | None] = {}
        self._declared: set[str] = set()

    def declare_global(self, arg: Arg) -> None:
        """An ARG before the first FROM, expanded."""
        for declaration in arg.declarations:
            self._globals[declaration.name] = declaration.default
            self._declared.add(declaration.name)

    def globals(self) -> dict[str, str]:
        """What FROM sees, and an ARG among the global ones: those before it, and the platform's without any declaration."""
        return {**self._platform, **self._values(self._globals)}

    def stage(self) -> "StageArguments":
        """A new stage's: nothing is declared in it, whatever its base has declared."""
        return StageArguments(self)

    def unused(self) -> list[str]:
        """Options that no ARG of the stages that ran has asked for, sorted."""
        return sorted(name for name in self._given if name not in self._declared and name not in PROXIES)

    def value(self, name: str, default: str | None) -> str | None:
        """An ARG's: the option, else its default, else what a global one of the name has."""
        given = self._given.get(name)
        if given is not None:
            return given
        if default is not None:
            return default
        outer = self._globals.get(name)
        return self._platform.get(name) if outer is None else outer

    def note(self, name: str) -> None:
        """A stage has declared it."""
        self._declared.add(name)

    def _values(self, declared: Mapping[str, str | None]) -> dict[str, str]:
        values = {name: self.value(name, default) for name, default in declared.items()}
        values |= {name: given for name, given in self._proxies.items() if name not in declared}
        return {name: value for name, value in values.items() if value is not None}


class StageArguments:
    """The arguments of one stage, as its ARGs come by."""

    def __init__(self, build: Arguments) -> None:
        self._build = build
        self._declared: dict[str, str | None] = {}

    def declare(self, arg: Arg) -> None:
        """An ARG of the stage, expanded."""
        for declaration in arg.declarations:
            self._declared[declaration.name] = declaration.default
            self._build.note(declaration.name)

    def values(self) -> dict[str, str]:
        """What expansion and RUN see, but for what ENV has of the same name; proxies too."""
        return self._build._values(self._declared)

    def environment(self, env: Iterable[str]) -> dict[str, str]:
        """What words of the next instruction are expanded with: the config's `env` (name=value), before it the arguments."""
        return self.values() | dict(entry.partition("=")[::2] for entry in env)

    def run_environment(self, env: Iterable[str]) -> list[str]:
        """What a RUN has in addition to the config's `env`, sorted."""
        taken = {entry.partition("=")[0] for entry in env}
        return sorted(f"{name}={value}" for name, value in self.values().items() if name not in taken)

    def key_prefix(self, env: Iterable[str]) -> list[str]:
        """What history and cache key of a RUN begin with: `|2`, `a=1`, `b=2`; nothing where there are no arguments at all."""
        run = self.run_environment(env)
        if not run:
            return []
        kept = [entry for entry in run if (name := entry.partition("=")[0]) in self._declared or name not in PROXIES]
        return [f"|{len(kept)}", *kept]
