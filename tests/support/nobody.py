"""Work done as a user without rights."""

import os
from collections.abc import Callable

from sampan.cli.http import CliError


def as_nobody(work: Callable[[], object]) -> str:
    """The message of the error that work raises in a process of another user."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
        except CliError as error:
            os.write(write, error.message.encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read, "rb") as pipe:
        return pipe.read().decode()
