"""The hash that names an image follows what the image is made from, and only that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fetch
import pytest

import build


def folder(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "Dockerfile").write_text("FROM x\n")
    (root / "sub" / "run.sh").write_text("true\n")
    return root


def test_same_content_same_hash(tmp_path: Path) -> None:
    assert build.content_of(folder(tmp_path / "a")) == build.content_of(folder(tmp_path / "b"))


def test_compiled_files_do_not_count(tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    before = build.content_of(root)
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert build.content_of(root) == before


@pytest.mark.parametrize("change", ["content", "mode", "name"])
def test_any_change_changes_the_hash(tmp_path: Path, change: str) -> None:
    root = folder(tmp_path / "a")
    before, script = build.content_of(root), root / "sub" / "run.sh"
    if change == "content":
        script.write_text("false\n")
    elif change == "mode":
        script.chmod(0o755)
    else:
        script.rename(root / "sub" / "start.sh")
    assert build.content_of(root) != before


def test_every_image_has_its_own_tag() -> None:
    tags = build.local_tags()
    assert len(set(tags.values())) == len(tags) == len(build.IMAGES) + 3


def test_requirements_are_pinned_and_hashed() -> None:
    for path in build.HERE.glob("*/requirements.txt"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert all("==" in line and "--hash=sha256:" in line for line in lines)


def test_nothing_is_built_when_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = build.local_tags()
    monkeypatch.setattr(build, "known_images", lambda: dict.fromkeys(tags.values(), "sha256:1"))
    monkeypatch.setattr(fetch, "run", lambda *_, **__: pytest.fail("something was run"))
    assert build.build_all() == {image.reference: tags[image.reference] for image in build.IMAGES}


@pytest.mark.parametrize(
    ("held", "pushes"), [("sha256:1", 0), ("sha256:2", len(build.IMAGES) + 1), (None, len(build.IMAGES) + 1)]
)
def test_only_what_the_registry_lacks_is_pushed(monkeypatch: pytest.MonkeyPatch, held: str | None, pushes: int) -> None:
    pushed: list[Any] = []
    monkeypatch.setattr(build, "known_images", lambda: dict.fromkeys(build.local_tags().values(), "sha256:1"))
    monkeypatch.setattr(build, "registry_has", lambda *_: held)
    monkeypatch.setattr(build, "push", lambda *arguments: pushed.append(arguments))
    build.build_all("127.0.0.1:5000")
    assert len(pushed) == pushes
    latest = {local for _registry, image, local in pushed if image.tag == "latest"}
    assert latest == ({build.local_tags()["mem0/openmemory-mcp:1.1"]} if pushes else set())


def test_a_registry_that_is_away_is_one_sentence() -> None:
    with pytest.raises(fetch.FetchError, match=r"the registry 127\.0\.0\.1:1 cannot be reached"):
        build.registry_has("127.0.0.1:1", build.IMAGES[0])


def test_a_missing_program_is_one_sentence() -> None:
    with pytest.raises(fetch.FetchError, match="no-such-program is needed to try it"):
        fetch.run(["no-such-program"], "try it")


def test_versions_name_what_the_images_are_called() -> None:
    versions = json.loads((build.HERE / "versions.json").read_text())
    assert f"qdrant/qdrant:{versions['qdrant']}" in build.local_tags()
