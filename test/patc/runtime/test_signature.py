"""Signatures of compiled models: who signed, with which keys, and every refusal in one line."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch
from command import fail, run
from torch import nn

import patc
from patc.diagnostics import PatcError
from patc.runtime import artefact, signature
from patc.runtime.signature import make_key

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "yours"):
        make_key(folder / name)
    return folder


@pytest.fixture(scope="module")
def content() -> bytes:
    return patc.compile(nn.Conv2d(1, 2, 3).eval(), (torch.zeros(1, 1, 5, 5),), threads=1).to_bytes()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "net.patc"
    path.write_bytes(content)
    return path


def test_signs_and_verifies(keys: Path, file: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "sign", file, "--key", keys / "mine") == f"{file}: signed with {keys / 'mine'}\n"
    digest = artefact.split(content).digest.hex()
    text = run(capsys, "verify", file, "--key", keys / "mine.pub")
    assert text == f"{file}: signed with the key of {keys / 'mine.pub'}, digest {digest}\n"
    # A signed file is the same one with a signature, and loads without a key, too.
    signed = artefact.split(file.read_bytes())
    assert artefact.join(replace(signed, signature=artefact.NO_SIGNATURE)) == content
    x = np.ones((1, 1, 5, 5), np.float32)
    np.testing.assert_array_equal(patc.load(file, key=keys / "mine.pub")(x), patc.load(file)(x))
    assert "output" in run(capsys, "run", file, "--key", keys / "mine.pub")
    # Signing again is no other file: Ed25519 draws nothing.
    before = file.read_bytes()
    run(capsys, "sign", file, "--key", keys / "mine")
    assert file.read_bytes() == before


def test_refuses_other_keys_and_other_content(keys: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = f"{file}: expected a model signed with the key of {keys / 'mine.pub'}"
    unsigned = f"{expected}, found one without signature"
    assert fail(capsys, "verify", file, "--key", keys / "mine.pub") == unsigned
    assert fail(capsys, "run", file, "--key", keys / "mine.pub") == unsigned
    run(capsys, "sign", file, "--key", keys / "yours")
    wrong = f"{expected}, found a signature of another key or of other content"
    assert fail(capsys, "verify", file, "--key", keys / "mine.pub") == wrong
    run(capsys, "sign", file, "--key", keys / "mine")
    signed = artefact.split(file.read_bytes())
    other = patc.compile(nn.Conv2d(1, 2, 3).eval(), (torch.zeros(1, 1, 5, 5),), threads=1).to_bytes()
    for changed in (
        replace(artefact.split(other), signature=signed.signature),
        replace(signed, signature=signed.signature[::-1]),
        replace(signed, description=signed.description + b" "),
    ):
        file.write_bytes(artefact.join(changed))
        assert fail(capsys, "verify", file, "--key", keys / "mine.pub") == wrong
        with pytest.raises(PatcError, match="found a signature of another key or of other content"):
            patc.load(file, key=keys / "mine.pub")


def test_a_damaged_file_is_neither_signed_nor_verified(
    keys: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    found = f"{file}: expected a compiled model, found damaged data (wrong digest)"
    assert fail(capsys, "sign", file, "--key", keys / "mine") == found
    assert fail(capsys, "verify", file, "--key", keys / "mine.pub") == found


def test_keys_are_private_and_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key"
    assert run(capsys, "sign", "--make-key", key) == f"{key}: private key; {key}.pub: public key\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert fail(capsys, "sign", "--make-key", key) == f"{key}: cannot write the key: File exists"
    assert key.read_bytes() == before
    (tmp_path / "other.pub").write_text("")
    assert fail(capsys, "sign", "--make-key", tmp_path / "other").endswith(
        "other.pub: cannot write the key: File exists"
    )
    assert not (tmp_path / "other").exists()
    assert "No such file or directory" in fail(capsys, "sign", "--make-key", tmp_path / "none" / "key")


def test_takes_the_keys_of_openssl_and_ssh_keygen(
    tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = {
        "openssl": [
            "openssl genpkey -algorithm ed25519 -out openssl",
            "openssl pkey -in openssl -pubout -out openssl.pub",
        ],
        "ssh-keygen": ["ssh-keygen -q -t ed25519 -N  -f ssh-keygen"],
    }
    for name, lines in commands.items():
        if which(name) is None:
            continue
        for line in lines:
            subprocess.run(line.split(" "), cwd=tmp_path, check=True, capture_output=True)
        run(capsys, "sign", file, "--key", tmp_path / name)
        run(capsys, "verify", file, "--key", tmp_path / f"{name}.pub")


def test_refuses_what_is_no_key(keys: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cryptography.hazmat.primitives import serialization as encoding
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem, pkcs8 = encoding.Encoding.PEM, encoding.PrivateFormat.PKCS8
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(pem, pkcs8, encoding.NoEncryption())
    locked = Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, encoding.BestAvailableEncryption(b"secret"))
    something_else = "expected a private Ed25519 key in PEM or of ssh-keygen, found something else"
    for content, found in (
        (b"", something_else),
        (bytes(range(256)), something_else),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n", something_else),
        ((keys / "mine").read_bytes()[:-40], something_else),
        ((keys / "mine.pub").read_bytes(), something_else.replace("something else", "a public one")),
        (b"ssh-ed25519 x", something_else.replace("something else", "a public one")),
        (other, "expected a private Ed25519 key, found one of another algorithm"),
        (locked, "expected a private Ed25519 key without a passphrase, found one with"),
    ):
        (tmp_path / "key").write_bytes(content)
        assert fail(capsys, "sign", file, "--key", tmp_path / "key") == f"{tmp_path / 'key'}: {found}"
    for place, found in ((tmp_path, "a folder"), ("/dev/zero", "a pipe, device or socket")):
        assert fail(capsys, "sign", file, "--key", place) == f"{place}: expected a private Ed25519 key, found {found}"
    none = tmp_path / "none"
    assert fail(capsys, "verify", file, "--key", none) == f"{none}: expected a public Ed25519 key, found no such file"
    assert "found a private one" in fail(capsys, "verify", file, "--key", keys / "mine")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sign"], "expected FILE and --key, or --make-key; patc sign --help says more"),
        (["sign", "net.patc"], "expected FILE and --key, or --make-key; patc sign --help says more"),
        (["sign", "net.patc", "--make-key", "x"], "expected --make-key alone, got it together with FILE or --key"),
        (["sign", "none.patc", "--key", "x"], "none.patc: expected a compiled model, found no such file"),
        (["run", "resnet18", "--key", "x"], "resnet18: expected a file of patc compile together with --key, got a model to compile"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_go_together(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fail(capsys, *words) == message


def test_says_what_to_install(
    keys: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    wanted = "expected the package cryptography for signatures, found none: pip install 'patc[sign]'"
    assert fail(capsys, "sign", file, "--key", keys / "mine") == wanted
    assert fail(capsys, "verify", file, "--key", keys / "mine.pub") == wanted
    assert fail(capsys, "sign", "--make-key", file.with_name("key")) == wanted


def test_loading_does_not_need_the_package(file: Path) -> None:
    program = "import sys, patc; patc.load(sys.argv[1]); assert 'cryptography' not in sys.modules"
    subprocess.run([sys.executable, "-c", program, os.fspath(file)], check=True)


def test_signatures_say_what_they_are_for() -> None:
    """So no signature of other bytes by the same key is one of a model."""
    assert signature._PURPOSE.startswith(b"patc ")
