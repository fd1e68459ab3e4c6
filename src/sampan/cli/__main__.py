"""`python -m sampan.cli`: the same as the `sampan` program."""

from sampan.cli.main import entry

entry()
