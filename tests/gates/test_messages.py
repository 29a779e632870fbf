"""Every message of the code has cause and remedy in docs/messages/, and those pages are what the code says today."""

from __future__ import annotations

import messages


def test_every_message_says_what_to_do_or_has_a_remedy() -> None:
    known = messages.rules()
    missing = [f"{one.file}: {one.text}" for one in messages.found() if messages.entry(one, known) is None]
    assert missing == [], f"Nothing says what to do about these messages. {messages.HOW}"


def test_every_remedy_is_of_a_message() -> None:
    known = messages.rules()
    used = {messages.rule_for(one.text, known) for one in messages.found() if messages.remedy_of(one.text) is None}
    stale = [rule.says for rule in known if rule not in used]
    assert stale == [], "No message fits these patterns in tests/gates/remedies/ any more: remove or correct them."


def test_the_pages_are_what_the_code_says() -> None:
    written = {path.name: path.read_text() for path in messages.PAGES.glob("*.md")}
    wanted = messages.pages()
    differing = sorted(name for name in {*written, *wanted} if written.get(name) != wanted.get(name))
    assert differing == [], "Messages came, changed or went since these pages were written: run make messages."


def test_the_extraction_finds_what_there_is() -> None:
    """Told by examples of every kind: raised, put together, in a table of patterns, in tasks, in a role's variables."""
    texts = {one.text for one in messages.found()}
    assert len(texts) > 400
    for wanted in (
        "volume {name}: path / is the whole file system; give a directory of its own.",
        "Container {name} started while its data was copied; nothing was backed up; try again.",
        "restic may not do that in the repository {where} ({first}): check the owner and modes there.",
        "backup_password_file is '{backup_password_file}', which is no absolute path; give one that starts with /.",
    ):
        assert wanted in texts
    assert any(text.startswith("Compose could not be brought to {inventory_hostname}") for text in texts)


def test_a_remedy_is_read_from_the_sentence() -> None:
    assert (
        messages.remedy_of("There is no repository; set init: true to have it made.")
        == "Set init: true to have it made."
    )
    assert messages.remedy_of("{error} Repair that, or leave it out.") == "Repair that, or leave it out."
    assert messages.remedy_of("The collection has no shard: its points are gone.") is None
