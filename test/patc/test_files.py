"""Writing: what becomes new, what stays as it is, and which names are refused before anything takes time."""

from __future__ import annotations

import os
import resource
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from patc.diagnostics import PatcError
from patc.files import (
    atomic_write,
    atomic_write_all,
    check_file,
    check_folder,
    is_standard_output,
    is_stream,
    write_folder,
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    path.write_text("old")
    return path


# -- Regular files and links ---------------------------------------------------------------------------


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    atomic_write(tmp_path / "new", b"data")
    assert (tmp_path / "new").read_bytes() == b"data"
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["new", "plain"]


def test_permissions_stay(old: Path) -> None:
    for mode in (0o600, 0o640, 0o755, 0o666):
        old.chmod(mode)
        atomic_write(old, "new")
        assert stat.S_IMODE(old.stat().st_mode) == mode and old.read_text() == "new"


@pytest.mark.parametrize("relative", [True, False])
def test_a_link_stays_and_its_target_becomes_new(old: Path, tmp_path: Path, relative: bool) -> None:
    (tmp_path / "deep").mkdir()
    first, second = tmp_path / "first", tmp_path / "deep" / "second"
    second.symlink_to("../old" if relative else old)
    first.symlink_to("deep/second" if relative else second)
    check_file(first)
    atomic_write(first, "new")
    assert first.is_symlink() and second.is_symlink() and not old.is_symlink()
    assert old.read_text() == "new" and os.listdir(tmp_path / "deep") == ["second"]


def test_a_link_to_nothing_gets_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    check_file(link)
    atomic_write(link, "new")
    assert link.is_symlink() and (tmp_path / "target").read_text() == "new"


def test_other_names_of_a_file_keep_the_old_content(old: Path, tmp_path: Path) -> None:
    os.link(old, tmp_path / "other")
    atomic_write(old, "new")
    assert (old.read_text(), (tmp_path / "other").read_text()) == ("new", "old")


# -- Devices, pipes and open files ---------------------------------------------------------------------


def test_a_named_pipe_gets_the_data_and_stays(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        check_file(path)
        found: list[bytes] = []
        reader = threading.Thread(target=lambda found=found: found.append(pipe.read_bytes()))
        reader.start()
        atomic_write(path, b"x" * 200_000)
        reader.join()
        assert found == [b"x" * 200_000] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.parametrize("form", ["/dev/fd/{}", "/proc/self/fd/{}", "/proc/thread-self/fd/{}"])
def test_an_open_file_is_written_where_it_stands(old: Path, tmp_path: Path, form: str) -> None:
    handle = os.open(old, os.O_WRONLY | os.O_APPEND)
    link = tmp_path / "link"
    link.symlink_to(form.format(handle))
    check_file(link)
    assert is_stream(link) and not is_standard_output(link)
    atomic_write(link, " and new")
    os.close(handle)
    assert old.read_text() == "old and new" and old.stat().st_nlink == 1


def test_standard_output_is_known_by_all_its_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    assert all(is_standard_output(path) for path in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", tmp_path / "link"))
    assert not is_standard_output("/dev/stderr") and not is_standard_output(tmp_path / "none")


def test_devices_stay() -> None:
    atomic_write("/dev/null", b"data")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and is_stream("/dev/null")
    with pytest.raises(PatcError, match=r"^/dev/full: cannot write the output: No space left on device$"):
        atomic_write("/dev/full", b"data")


# -- Failures ------------------------------------------------------------------------------------------


def test_several_files_are_all_old_when_one_cannot_be_written(old: Path, tmp_path: Path) -> None:
    with pytest.raises(PatcError, match="missing/b: cannot write the file: No such file or directory"):
        atomic_write_all({old: "new", tmp_path / "a": "new", tmp_path / "missing" / "b": "new"})
    (tmp_path / "folder").mkdir()
    with pytest.raises(PatcError, match="folder: cannot write the file: Is a directory"):
        atomic_write_all({old: "new", tmp_path / "a": "new", tmp_path / "folder": "new"})
    with pytest.raises(PatcError, match="/dev/full: cannot write the output"):
        atomic_write_all({old: "new", tmp_path / "a": "new", "/dev/full": "new"})
    assert old.read_text() == "old" and sorted(os.listdir(tmp_path)) == ["folder", "old"]


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_several_files_are_all_old_when_renaming_ends_early(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, failing: int
) -> None:
    replace, calls = os.replace, iter(range(1, 100))

    def fail(source: str, target: str) -> None:
        if next(calls) == failing:
            raise error
        replace(source, target)

    second = tmp_path / "second"
    second.write_text("old, too")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((PatcError, KeyboardInterrupt)):
        atomic_write_all({old: "new", tmp_path / "a": "new", second: "new"})
    assert (old.read_text(), second.read_text()) == ("old", "old, too")
    assert sorted(os.listdir(tmp_path)) == ["old", "second"]


@pytest.mark.parametrize("interrupted", [1, 2, 3, 4])
def test_an_interrupt_while_backups_go_leaves_none(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    unlink, calls = os.unlink, iter(range(1, 100))

    def interrupt(path: str) -> None:
        if next(calls) == interrupted:
            raise KeyboardInterrupt
        unlink(path)

    second = tmp_path / "second"
    second.write_text("old, too")
    monkeypatch.setattr(os, "unlink", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_all({old: "new", second: "new"})
    assert (old.read_text(), second.read_text()) == ("new", "new")
    assert sorted(os.listdir(tmp_path)) == ["old", "second"]


def test_an_interrupted_write_leaves_the_old_file(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write(old, "new")
    monkeypatch.undo()
    assert old.read_text() == "old" and os.listdir(old.parent) == ["old"]


@pytest.fixture
def small_files() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files")
def test_a_file_that_becomes_too_large_leaves_the_old_one(old: Path, tmp_path: Path) -> None:
    with pytest.raises(PatcError, match="old: cannot write the file: File too large"):
        atomic_write(old, b"x" * 200_000)
    with pytest.raises(PatcError, match="b: cannot write the file: File too large"):
        write_folder(tmp_path / "new" / "folder", {"a": "small", "b": b"x" * 200_000})
    assert old.read_text() == "old" and os.listdir(tmp_path) == ["old"]


# -- Names ---------------------------------------------------------------------------------------------


def test_names_as_long_as_names_can_be_are_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    check_file(path)
    atomic_write(path, "data")
    assert os.listdir(tmp_path) == [path.name]


def test_names_of_any_bytes_are_written(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe")
    check_file(path)
    atomic_write(path, "data")
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff\xfe"]


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


def _socket(folder: Path) -> str:
    os.chdir(folder)  # a socket's name has a hundred characters at most
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    return str(folder / "socket")


def _dangling(folder: Path) -> Path:
    (folder / "dangling").symlink_to("none/target")
    return folder / "dangling"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (lambda folder: "", "expected the name of a file or folder, got an empty one"),
        (lambda folder: f"{folder}/a\0b", r"/a\\0b: expected a name without null characters"),
        (lambda folder: f"{folder}/" + 300 * "x", "cannot write the file: File name too long"),
        (lambda folder: f"{folder}/" + 2500 * "x/" + "y", "cannot write the file: File name too long"),
        (lambda folder: f"{folder}/none/", "expected a file to write, got a folder"),
        (lambda folder: folder, "expected a file to write, got a folder"),
        (lambda folder: f"{folder}/none/x", "expected a file in a folder that exists"),
        (lambda folder: f"{folder}/old/x", "expected a file in a folder that exists"),
        (_loop, "cannot write the file: Too many levels of symbolic links"),
        (_socket, "expected a file to write, got a socket"),
        (_dangling, "expected a file in a folder that exists"),
        (lambda folder: "/dev/fd/4999", "cannot write the file: Bad file descriptor"),
    ],
)
def test_names_that_cannot_be_written_are_known_before(
    old: Path, monkeypatch: pytest.MonkeyPatch, path: Callable[[Path], str | Path], message: str
) -> None:
    monkeypatch.chdir(old.parent)
    name = path(old.parent)
    before = sorted(os.listdir(old.parent))
    with pytest.raises(PatcError, match=message):
        check_file(name)
    with pytest.raises(PatcError):
        atomic_write(name, "data")
    assert sorted(os.listdir(old.parent)) == before


def test_an_open_file_for_reading_is_refused(old: Path) -> None:
    with old.open() as file, pytest.raises(PatcError, match="Bad file descriptor"):
        check_file(f"/dev/fd/{file.fileno()}")


def test_read_only_files_and_folders_are_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(old))  # root may write everywhere
    with pytest.raises(PatcError, match="expected a file that can be written to, got a read-only one"):
        check_file(old)
    with pytest.raises(PatcError, match="old: cannot write the file: Permission denied"):
        atomic_write(old, "new")
    monkeypatch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(old.parent))
    with pytest.raises(PatcError, match="expected a file in a folder that can be written to"):
        check_file(old.with_name("new"))


def test_folders_are_checked_with_what_goes_there(old: Path) -> None:
    folder = old.parent / "folder"
    check_folder(folder / "deep", ["x"])
    for path, files, message in (
        (old, (), "old: expected a folder, got a file"),
        (old / "x", (), "old/x: expected a folder, got a file"),
        (folder, ["x" * 300], "cannot make the folder: File name too long"),
        (old.parent / ("x" * 300), (), "cannot make the folder: File name too long"),
        ("", (), "got an empty one"),
    ):
        with pytest.raises(PatcError, match=message):
            check_folder(path, files)
    (folder / "x").mkdir(parents=True)
    with pytest.raises(PatcError, match="folder/x: expected a file to write, got a folder"):
        check_folder(folder, ["x"])
