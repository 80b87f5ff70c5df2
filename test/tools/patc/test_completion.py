"""What shells complete."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from patc.tools.patc import SHELLS, main

_ASK = """
source completion.sh
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_shtab_patc patc "${{COMP_WORDS[$COMP_CWORD]}}"; echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="asks bash")
def test_bash_completes_commands_options_networks_and_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--print-completion", "bash"]) == 0
    (tmp_path / "completion.sh").write_text(capsys.readouterr().out)
    (tmp_path / "net.patc").touch()

    def complete(words: str) -> set[str]:
        line = ["bash", "-c", _ASK.format(words=words)]
        found = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert found.returncode == 0 and found.stderr == ""
        return {*found.stdout.split()}

    assert complete("patc comp") == {"compile"}
    assert complete("patc compile --save") == {"--save-ir"}
    assert complete("patc bench resnet18") == {"resnet18", "resnet18_cifar"}
    assert complete("patc report ne") == {"net.patc"}


@pytest.mark.parametrize("shell", SHELLS)
def test_completions_of_each_shell(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["--print-completion", shell]) == 0
    assert "dynamic-batch" in capsys.readouterr().out
