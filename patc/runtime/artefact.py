"""The file of a compiled model: a header, a description, code and weights, every byte under one digest.

    place  bytes
        0      8  MAGIC
        8      8  version of the format
       16     32  bytes of the description, of the code, of the weights and of the variants
       48     16  zeros
       64     32  digest: SHA-256 of the 64 bytes before it and of the digests of the four
       96     64  signature of the digest, or zeros
      160     32  zeros
      192         description, code, variants, weights; each starts at a multiple of 64, with zeros in between

Numbers are little-endian, of 8 bytes. Variants are the code for each further shape, behind its size. The digest of
weights is that of the digests of their parts of `PART` bytes, so that several threads can compute it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from patc.runtime.memory import aligned_bytes

FORMAT = 11
MAGIC = b"\x89PATC\r\n\x1a"  # a transfer as text changes it
PART = 4 << 20
NO_SIGNATURE = bytes(64)
_SIZES = struct.Struct("<8s5Q16x")
_DIGEST, SIGNATURE, _HEADER = 64, 96, 192  # places
_ALIGNMENT = 64
_LARGEST = {"description": 1 << 26, "code": 1 << 30, "weights": 1 << 40, "variants": 1 << 32}  # bytes
_DIGEST_THREADS = 8
# Format 2 was a safetensors file: eight bytes, then this.
_FORMAT_2 = re.compile(rb'.{8}\{"__metadata__":\{"patc":"\{\\"format\\": (\d{1,9}),', re.DOTALL)


@dataclass(frozen=True)
class Parts:
    """What a file consists of.

    Attributes:
        description: JSON text, see `patc.runtime.description`.
        code: an object file, or what `GpuCode.to_bytes` returned.
        weights: bytes.
        variants: the code for each further shape.
        signature: of the digest, see `patc.runtime.signature`; zeros where there is none.
    """

    description: bytes
    code: bytes
    weights: np.ndarray
    variants: tuple[bytes, ...] = ()
    signature: bytes = NO_SIGNATURE

    @functools.cached_property
    def weights_digest(self) -> bytes:
        """The digest of the weights."""
        return digest_weights(self.weights)

    @property
    def header(self) -> bytes:
        """The bytes before the digest."""
        sizes = (len(self.description), len(self.code), self.weights.nbytes, len(self.joined_variants))
        return _SIZES.pack(MAGIC, FORMAT, *sizes)

    @functools.cached_property
    def joined_variants(self) -> bytes:
        """The variants as they are in the file."""
        return b"".join(len(code).to_bytes(8, "little") + code for code in self.variants)

    @property
    def digest(self) -> bytes:
        """The digest of the file."""
        digests = map(_sha256, (self.description, self.code, self.joined_variants))
        return _sha256(b"".join([self.header, *digests, self.weights_digest]))


def digest_weights(weights: np.ndarray) -> bytes:
    """Return the digest of contiguous bytes."""
    parts = [weights[start : start + PART].data for start in range(0, weights.nbytes, PART)]
    digests = [b""] * len(parts)
    places = iter(range(len(parts)))

    def work() -> None:
        for place in places:
            digests[place] = _sha256(parts[place])

    threads = _start_threads(work, min(len(parts), _DIGEST_THREADS, os.cpu_count() or 1) - 1)
    work()
    for thread in threads:
        thread.join()
    return _sha256(b"".join(digests))


def _start_threads(work: Callable[[], None], count: int) -> list[threading.Thread]:
    """Start at most `count` threads: a process that may have no more, or that is about to end, goes on without."""
    threads: list[threading.Thread] = []
    with contextlib.suppress(RuntimeError):
        for _ in range(count):
            thread = threading.Thread(target=work)
            thread.start()
            threads.append(thread)
    return threads


def join(parts: Parts) -> bytes:
    """Return the bytes of the file that consists of `parts`, with its digest; the parts may be anything."""
    start = [parts.header, parts.digest, parts.signature, bytes(_HEADER - SIGNATURE - len(NO_SIGNATURE))]
    before = (parts.description, parts.code, parts.joined_variants)
    padded = [piece for data in before for piece in (data, bytes(-len(data) % _ALIGNMENT))]
    return b"".join([*start, *padded, parts.weights.data])


def split(data: bytes) -> Parts:
    """Return the parts of a file's bytes.

    Raises:
        ValueError: as `read`.
    """
    return read(io.BytesIO(data))


def read(stream: BinaryIO) -> Parts:
    """Return the parts of a file whose digest is right; nothing says yet whether they make sense.

    Raises:
        ValueError: the file is damaged or none of this format; what was expected and found.
        OSError, MemoryError: it cannot be read.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    header = _read(stream, min(size, _HEADER))
    sizes = _read_sizes(header)
    _require_size(size, sizes)
    before = (sizes[0], sizes[1], sizes[3])
    (description, code, variants), padding = zip(*(_read_padded(stream, size) for size in before), strict=True)
    weights = aligned_bytes(sizes[2])
    _fill(stream, weights.data)
    weights.flags.writeable = False
    signature = header[SIGNATURE : SIGNATURE + len(NO_SIGNATURE)]
    parts = Parts(description, code, weights, _split_variants(variants), signature)
    zeros = header[SIGNATURE + len(NO_SIGNATURE) :] + b"".join(padding)
    if header[:_DIGEST] != parts.header or any(zeros) or header[_DIGEST:SIGNATURE] != parts.digest:
        raise _damaged("wrong digest")
    return parts


def _read_sizes(header: bytes) -> tuple[int, ...]:
    """Return the bytes of description, code, weights and variants that a header tells."""
    old = _FORMAT_2.match(header)
    if old:
        raise ValueError(f"expected a compiled model of format {FORMAT}, found format {int(old[1])}; compile it again")
    if header[: len(MAGIC)] != MAGIC[: len(header)] or not header:
        raise ValueError("expected a compiled model, found damaged data or another format")
    if len(header) < _HEADER:
        raise _damaged(f"{len(header)} bytes, {_HEADER} or more expected")
    _, version, *sizes = _SIZES.unpack_from(header)
    if version != FORMAT:
        raise ValueError(f"expected a compiled model of format {FORMAT}, found format {version}; compile it again")
    return tuple(sizes)


def _require_size(size: int, sizes: tuple[int, ...]) -> None:
    """Refuse a file of another size than its header tells."""
    for (name, largest), length in zip(_LARGEST.items(), sizes, strict=True):
        if length > largest:
            raise _damaged(f"{length} bytes of {name}, {largest} or less expected")
    wanted = _HEADER + sum(_padded(sizes[part]) for part in (0, 1, 3)) + sizes[2]
    if size != wanted:
        raise _damaged(f"{size} bytes, {wanted} expected")


def _split_variants(data: bytes) -> tuple[bytes, ...]:
    found, place = [], 0
    while place < len(data):
        start, place = place + 8, place + 8 + int.from_bytes(data[place : place + 8], "little")
        if place > len(data):
            raise _damaged("code of variants that is cut off")
        found.append(data[start:place])
    return tuple(found)


def _damaged(why: str) -> ValueError:
    return ValueError(f"expected a compiled model, found damaged data ({why})")


def _padded(length: int) -> int:
    return length + -length % _ALIGNMENT


def _read_padded(stream: BinaryIO, length: int) -> tuple[bytes, bytes]:
    return _read(stream, length), _read(stream, -length % _ALIGNMENT)


def _read(stream: BinaryIO, length: int) -> bytes:
    data = bytearray(length)
    _fill(stream, memoryview(data))
    return bytes(data)


def _fill(stream: Any, memory: memoryview) -> None:
    """Read as many bytes as a memory has."""
    if stream.readinto(memory) != len(memory):
        raise _damaged("it became shorter while it was read")


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()
