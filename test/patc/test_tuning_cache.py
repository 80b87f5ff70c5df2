"""The cache of measured times: what is stored comes back, and nothing that happens to its files is an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from patc.diagnostics import PatcError
from patc.tuning_cache import TuningCache, default_folder

TIMES = [1e-3, 2.5e-4, 0.125]


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds the entry of `layer`."""
    TuningCache(tmp_path / "tuning").store("layer", TIMES)
    return tmp_path / "tuning"


def test_another_process_finds_what_was_stored(folder: Path) -> None:
    assert TuningCache(folder).load("layer", 3) == TIMES


def test_other_keys_have_entries_of_their_own(folder: Path) -> None:
    cache = TuningCache(folder)
    assert cache.load("other layer", 1) is None
    cache.store("other layer", [3.0])
    assert len(list(folder.iterdir())) == 2
    assert TuningCache(folder).load("other layer", 1) == [3.0]
    assert TuningCache(folder).load("layer", 3) == TIMES


def test_a_later_entry_replaces_an_earlier_one(folder: Path) -> None:
    TuningCache(folder).store("layer", [1.0])
    assert TuningCache(folder).load("layer", 1) == [1.0]


def test_nothing_is_written_before_something_is_stored(tmp_path: Path) -> None:
    assert TuningCache(tmp_path / "tuning").load("layer", 3) is None
    assert list(tmp_path.iterdir()) == []


def changed(**fields: object) -> str:
    """Return the entry of `layer` with other fields; None leaves one out."""
    entry = {"format": 1, "key": "7c3d", "seconds": TIMES, **fields}
    return json.dumps({name: value for name, value in entry.items() if value is not None})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "3",
        changed(seconds=None),
        changed(format=0),
        changed(key="of another layer"),
        changed(seconds=TIMES[:2]),
        changed(seconds=[*TIMES, 1.0]),
        changed(seconds=[0.0, *TIMES[1:]]),
        changed(seconds=[float("nan"), *TIMES[1:]]),
        changed(seconds=[float("inf"), *TIMES[1:]]),
        changed(seconds=["fast", *TIMES[1:]]),
        changed(seconds=[[1.0], *TIMES[1:]]),
        changed(seconds=3),
    ],
)
def test_a_damaged_entry_is_refused_until_it_is_stored_again(folder: Path, text: str) -> None:
    path = only_file(folder)
    path.write_text(text.replace("7c3d", path.stem))
    with pytest.raises(PatcError) as caught:
        TuningCache(folder).load("layer", 3)
    assert str(caught.value) == f"{path}: expected measured times, found damaged data"
    TuningCache(folder).store("layer", TIMES)
    assert TuningCache(folder).load("layer", 3) == TIMES


def test_an_entry_that_is_no_text_is_refused(folder: Path) -> None:
    only_file(folder).write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(PatcError, match="found damaged data"):
        TuningCache(folder).load("layer", 3)


def test_an_entry_that_cannot_be_read_is_none(folder: Path) -> None:
    path = only_file(folder)
    path.unlink()
    path.mkdir()
    assert TuningCache(folder).load("layer", 3) is None


@pytest.mark.parametrize("inside", ["", "patc/tuning"])
def test_a_folder_that_cannot_be_made_keeps_nothing_but_for_this_object(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").touch()
    cache = TuningCache(tmp_path / "file" / inside)
    assert cache.load("layer", 3) is None
    with pytest.raises(PatcError, match="cannot make the folder: "):
        cache.store("layer", TIMES)
    assert cache.load("layer", 3) == TIMES


def test_a_file_that_cannot_be_written_leaves_nothing_behind(folder: Path) -> None:
    path = only_file(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(PatcError, match="cannot write the file: "):
        TuningCache(folder).store("layer", TIMES)
    assert list(folder.iterdir()) == [path]


def test_processes_that_write_and_read_at_once_see_whole_entries(folder: Path) -> None:
    program = """
import sys
from pathlib import Path
from patc.tuning_cache import TuningCache
for number in range(1, 100):
    TuningCache(Path(sys.argv[1])).store("layer", [float(number)] * int(sys.argv[2]))
    assert TuningCache(Path(sys.argv[1])).load("layer", int(sys.argv[2]))
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), "3"], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [writer.communicate()[1] for writer in writers] == [""] * 3
    assert TuningCache(folder).load("layer", 3) == [99.0] * 3
    assert len(list(folder.iterdir())) == 1


def test_follows_the_cache_folder_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "patc" / "tuning"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == tmp_path / "home" / ".cache" / "patc" / "tuning"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert TuningCache().folder == tmp_path / "home" / ".cache" / "patc" / "tuning"


def test_users_without_a_home_get_a_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "patc" / "tuning"
