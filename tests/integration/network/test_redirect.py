"""The redirection of a container's name queries, as nft reads it from the kernel."""

import subprocess
import threading

import pytest

from sampan.linux import libc, nfredirect
from sampan.linux.namespaces import CLONE_NEWNET

pytestmark = pytest.mark.root

RULES = """\
table ip sampan_dns {
\tchain output {
\t\ttype nat hook output priority -100; policy accept;
\t\tip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40001
\t\tip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40002
\t}
}
"""


def test_queries_go_to_other_ports_however_often_it_is_done() -> None:
    found: list[str] = []

    def work() -> None:
        libc.unshare(CLONE_NEWNET)
        for _ in range(2):
            nfredirect.redirect_dns("sampan_dns", "127.0.0.11", {"udp": 40001, "tcp": 40002})
        with pytest.raises(OSError, match=r"\[Errno \d+\]"):
            nfredirect.redirect_dns("x" * 300, "127.0.0.11", {"udp": 1})
        found.append(subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, timeout=10, check=True).stdout)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [RULES]
