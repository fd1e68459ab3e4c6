"""What quickstart installs beside the engine: manual pages and completions, and `docker` as a name of `sampan`."""

import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]


def of_quickstart(*names: str) -> str:
    """The text of quickstart's functions."""
    text = (REPO / "quickstart").read_text()
    return "\n".join(re.findall(rf"^(?:{'|'.join(names)})\(\) \{{$.*?^\}}$", text, re.M | re.S))


def test_documents_are_linked_and_unlinked(tmp_path: Path) -> None:
    prefix, share = tmp_path / "opt", tmp_path / "share"
    home = prefix / "1"
    subprocess.run([REPO / "packaging/documents", home / "share", sys.executable], check=True, timeout=60)
    (prefix / "current").symlink_to("1")
    script = f"set -euo pipefail; prefix={prefix} share={share} home={home}\n{of_quickstart('link_documents', 'unlink_documents')}\n"
    subprocess.run(["bash", "-c", script + "link_documents; link_documents"], check=True, timeout=60)
    foreign = share / "man/man1/other.1"
    foreign.write_text("")
    linked = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_symlink()}
    assert linked >= {
        "man/man1/sampan.1",
        "man/man1/sampan-run.1",
        "bash-completion/completions/sampan",
        "zsh/site-functions/_sampan",
        "fish/vendor_completions.d/sampan.fish",
    }
    assert (share / "man/man1/sampan-run.1").read_text().startswith('.TH "SAMPAN\\-RUN" 1')
    assert "complete -F _sampan sampan" in (share / "bash-completion/completions/sampan").read_text()
    subprocess.run(["bash", "-c", script + "unlink_documents"], check=True, timeout=60)
    assert [path for path in share.rglob("*") if not path.is_dir()] == [foreign]


def test_docker_becomes_a_name_of_sampan_where_there_is_none(tmp_path: Path) -> None:
    prefix, bin = tmp_path / "opt", tmp_path / "bin"
    launcher = prefix / "current/launch/sampan"
    launcher.parent.mkdir(parents=True)
    launcher.touch(mode=0o755)
    bin.mkdir()
    script = f"set -euo pipefail; prefix={prefix} bin={bin} PATH={bin}:$TOOLS\n{of_quickstart('die', 'alias_docker')}\nalias_docker"
    script = 'die() { echo "$*"; exit 1; }\n' + script
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("ln", "readlink"):
        (tools / name).symlink_to(f"/usr/bin/{name}")

    def alias() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-c", script], capture_output=True, text=True, env={"TOOLS": str(tools)}, check=False, timeout=20
        )

    assert alias().returncode == alias().returncode == 0
    assert (bin / "docker").readlink() == launcher
    (bin / "docker").unlink()
    (bin / "docker").touch(mode=0o755)
    refused = alias()
    assert (refused.returncode, refused.stdout) == (1, f"there is a docker already, {bin}/docker: it is left as it is\n")
    assert not (bin / "docker").is_symlink()
