# Copyright: the openmemory.stack developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What had just changed when it was copied: compared by the next run, and left alone where the copy is right."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture import passing
from ansible_collections.openmemory.stack.plugins.module_utils._core.capture.mirror import Mirror
from mirrored_tree import MARGIN_S, Scene, scene_of, write_at


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return scene_of(tmp_path, monkeypatch)


def read_too_early(scene: Scene) -> int:
    """An index after a capture right after a change; the ctime of the copy of file in ns."""
    write_at(scene.source / "file", 0, b"new")
    one = scene.mirror()
    one.live_pass()
    one.frozen_pass()
    one.save()
    os.unlink(scene.source / "deep/er/hard")  # with one name it can be left alone, and this is a change of it as well
    one = scene.mirror()
    one.live_pass()
    one.frozen_pass()
    one.save()
    return (scene.target / "file").stat().st_ctime_ns


@pytest.mark.parametrize("way", ["live", "flush"])
def test_what_had_just_changed_is_left_alone_by_the_next_run(scene: Scene, way: str) -> None:
    """restic reads again whatever was written again."""
    before = read_too_early(scene)
    time.sleep(MARGIN_S * 3)
    one = scene.mirror()
    one.live_pass() if way == "live" else one.flush()
    assert one.frozen_pass().bytes_read == 0
    assert (scene.target / "file").stat().st_ctime_ns == before
    assert one.verify() == []


def test_a_volume_whose_only_file_is_always_written_is_warm(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/database").write_bytes(b"busy")
    one = mirror_of(tmp_path)
    assert not one.is_warm()
    one.live_pass()
    one.frozen_pass()
    one.save()
    assert mirror_of(tmp_path).is_warm()
    (tmp_path / "copy/database").unlink()
    assert not mirror_of(tmp_path).is_warm()


def mirror_of(root: Path) -> Mirror:
    return Mirror(str(root / "source"), str(root / "copy"), str(root / "index/volume.json"))


@pytest.mark.parametrize("what", ["contents", "mode", "attribute", "time"])
def test_a_copy_that_is_not_right_is_not_left_alone(scene: Scene, what: str) -> None:
    read_too_early(scene)
    copy = scene.target / "file"
    mtime_ns = copy.stat().st_mtime_ns
    if what == "contents":
        write_at(copy, 40_000, b"not the source's")
        os.utime(copy, ns=(mtime_ns, mtime_ns))
    elif what == "mode":
        copy.chmod(0o600)
    elif what == "attribute":
        os.setxattr(copy, "user.note", b"other")
    else:
        os.utime(copy, ns=(1, 1))
    time.sleep(MARGIN_S * 3)
    one = scene.mirror()
    one.live_pass()
    assert one.verify() == []
    assert one.frozen_pass().files_read == 0


def test_a_file_that_becomes_a_pipe_is_left_to_the_pass(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    read_too_early(scene)
    time.sleep(MARGIN_S * 3)
    real, path = passing._open_source, scene.source / "file"

    def becoming(name: str, directory: int) -> int:
        if name == "file" and path.is_file():
            path.unlink()
            os.mkfifo(path)
        return real(name, directory)

    monkeypatch.setattr(passing, "_open_source", becoming)
    one = scene.mirror()
    one.live_pass()
    assert path.is_fifo()
    one.frozen_pass()
    assert one.verify() == []


@pytest.mark.parametrize("by", ["link", "file", "nothing"])
def test_a_directory_that_is_none_any_more_is_left_to_the_pass(scene: Scene, by: str) -> None:
    (scene.source / "deep/er/own").write_bytes(b"just written")
    one = scene.mirror()
    one.live_pass()
    one.frozen_pass()
    one.save()
    time.sleep(MARGIN_S * 3)
    deeper = scene.source / "deep/er"
    deeper.rename(scene.source.parent / "elsewhere")
    if by == "link":
        deeper.symlink_to(scene.source.parent / "elsewhere")
    elif by == "file":
        deeper.write_bytes(b"file")
    one = scene.mirror()
    one.live_pass()
    one.frozen_pass()
    assert one.verify() == []


def test_a_name_that_the_window_sees_first_is_not_vouched_for(scene: Scene) -> None:
    """Nothing has flushed what it is a name of, also where another name was read."""
    for name in ("one", "two"):
        (scene.source.parent / name).mkdir()
    (scene.source.parent / "one/file").write_bytes(b"old")
    os.link(scene.source.parent / "one/file", scene.source.parent / "two/file")
    one = scene.captured()
    for name in ("one", "two"):
        (scene.source.parent / name).rename(scene.source / name)
    one.frozen_pass()
    one.save()
    (scene.source / "one").rename(scene.source.parent / "one")
    assert scene.mirror().frozen_pass().files_read == 1


def test_a_store_that_moved_no_time_is_found_by_the_comparison(scene: Scene) -> None:
    """As one through a mapping does it to a page that was dirty when the file was read."""
    read_too_early(scene)
    about = (scene.source / "file").stat()
    write_at(scene.source / "file", 60_000, b"stored")
    scene.index.write_bytes(
        scene.index.read_bytes().replace(
            b"%d,%d]" % (about.st_mtime_ns, about.st_ctime_ns),
            b"%d,%d]" % ((now := (scene.source / "file").stat()).st_mtime_ns, now.st_ctime_ns),
        )
    )
    time.sleep(MARGIN_S * 3)
    one = scene.mirror()
    one.live_pass()
    assert one.verify() == []
