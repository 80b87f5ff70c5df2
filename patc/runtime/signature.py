"""Signatures of compiled models: Ed25519 over the digest of the file, by the package `cryptography`.

Keys are PEM files, as `openssl genpkey -algorithm ed25519` writes them, or those of `ssh-keygen -t ed25519`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from patc.diagnostics import PatcError
from patc.files import check_regular
from patc.runtime.artefact import NO_SIGNATURE, Parts

# Or a signature of other bytes, made with the same key, could be taken for one of a model.
_PURPOSE = b"patc compiled model 1\0"
_LARGEST_KEY = 1 << 16  # bytes
_INSTALL = "expected the package cryptography for signatures, found none: pip install 'patc[sign]'"


def sign(parts: Parts, key: str | os.PathLike[str]) -> Parts:
    """Return a model with a signature.

    Args:
        key: file with the private key.

    Raises:
        PatcError: the key cannot be read, or `cryptography` is not installed.
    """
    private = _read_key(key, "private", _read_private)
    return replace(parts, signature=private.sign(_PURPOSE + parts.digest))


def verify(parts: Parts, key: str | os.PathLike[str], place: str) -> None:
    """Refuse a model that is not signed with a key.

    Args:
        key: file with the public key.
        place: the model's file, for errors.

    Raises:
        PatcError: it is not signed, or with another key or for other content; or as for `sign`.
    """
    public = _read_key(key, "public", _read_public)
    if parts.signature == NO_SIGNATURE:
        raise PatcError(f"expected a model signed with the key of {os.fspath(key)}, found one without signature", place)
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(parts.signature, _PURPOSE + parts.digest)
    except InvalidSignature:
        found = "found a signature of another key or of other content"
        raise PatcError(f"expected a model signed with the key of {os.fspath(key)}, {found}", place) from None


def make_key(path: str | os.PathLike[str]) -> None:
    """Write a new private key to `path`, for its owner alone, and the public one beside it, with ".pub" at the end.

    Raises:
        PatcError: a file is there already or cannot be written, or `cryptography` is not installed; nothing is left.
    """
    encoding = _serialization()
    private = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519").Ed25519PrivateKey.generate()
    secret = private.private_bytes(encoding.Encoding.PEM, encoding.PrivateFormat.PKCS8, encoding.NoEncryption())
    public = private.public_key().public_bytes(encoding.Encoding.PEM, encoding.PublicFormat.SubjectPublicKeyInfo)
    _write_new(os.fspath(path), secret, 0o600)
    try:
        _write_new(f"{os.fspath(path)}.pub", public, 0o666)
    except BaseException:
        os.unlink(path)
        raise


def _write_new(path: str, data: bytes, mode: int) -> None:
    """Write a file that is not there yet: a key that is lost cannot be made again."""
    made = False
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        made = True
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
    except BaseException as error:  # Ctrl-C, too
        if made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        if not isinstance(error, (OSError, ValueError)):
            raise
        raise PatcError(f"cannot write the key: {getattr(error, 'strerror', None) or error}", path) from None


def _serialization() -> Any:
    try:
        return importlib.import_module("cryptography.hazmat.primitives.serialization")
    except ImportError:
        raise PatcError(_INSTALL) from None


def _read_private(encoding: Any, data: bytes) -> Any:
    if b"BEGIN OPENSSH" in data:
        return encoding.load_ssh_private_key(data, None)
    return encoding.load_pem_private_key(data, None)


def _read_public(encoding: Any, data: bytes) -> Any:
    return encoding.load_ssh_public_key(data) if data.startswith(b"ssh-") else encoding.load_pem_public_key(data)


def _read_key(path: str | os.PathLike[str], kind: str, read: Callable[[Any, bytes], Any]) -> Any:
    """Return an Ed25519 key.

    Args:
        kind: "private" or "public".
        read: makes a key of the module for serialization and the file's bytes.
    """
    encoding, place, expected = _serialization(), os.fspath(path), f"expected a {kind} Ed25519 key"
    check_regular(place, f"a {kind} Ed25519 key")
    try:
        with open(place, "rb") as stream:
            data = stream.read(_LARGEST_KEY)
        key = read(encoding, data)
    except OSError as error:
        raise PatcError(f"cannot read the key: {error.strerror or error}", place) from None
    except TypeError:
        raise PatcError(f"{expected} without a passphrase, found one with", place) from None
    except Exception:  # of many classes: ValueError, UnsupportedAlgorithm and what the library's own parser throws
        raise PatcError(f"{expected} in PEM or of ssh-keygen, found {_describe(data, kind)}", place) from None
    if type(key).__name__ != f"Ed25519{kind.title()}Key":
        raise PatcError(f"{expected}, found one of another algorithm", place)
    return key


def _describe(data: bytes, kind: str) -> str:
    """Return what is there instead of a key of some kind: the other key of the pair is what gets mixed up."""
    if kind == "public" and b"PRIVATE KEY-----" in data:
        return "a private one"
    if kind == "private" and (b"PUBLIC KEY-----" in data or data.startswith(b"ssh-")):
        return "a public one"
    return "something else"
