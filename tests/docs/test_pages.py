"""Every command that README.md and docs/ show is run in a clean directory, and prints what is shown."""

from __future__ import annotations

import re

import pages
import pytest

LONG = pytest.mark.long
README = pages.ROOT / "README.md"
MOST_NOT_RUN = 9
# Their commands ask for a server or a cluster: tests/deploy starts those, and runs them.
ELSEWHERE = [pages.ROOT / "docs" / "guides" / name for name in ("slurm.md", "team-server.md", "scale.md")]
WITH_COMMANDS = [
    page for page in pages.pages() if page not in ELSEWHERE and any(fence.commands() for fence in pages.fences(page))
]


def everything(page):
    return [fence for fence in pages.fences(page) if fence.commands() and not fence.note("run by")]


def faults(page, fences, short=False):
    session, found = pages.Session(), []
    for fence in fences:
        for command, wrong, printed in pages.run(fence, session, short=short):
            if wrong:
                found.append(f"{fence.where}: {command.text}: {wrong}\nprinted is:\n" + "\n".join(printed))
    return found


def test_the_commands_of_readme(tmp_path):
    fences = [fence for fence in everything(README) if not fence.note("not run")]
    assert sum(len(fence.commands()) for fence in fences) >= 6
    with pages.clean_directory(tmp_path, short=True):
        assert not faults(README, fences, short=True)


@LONG
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=[str(page.relative_to(pages.ROOT)) for page in WITH_COMMANDS])
def test_the_commands_of_every_page(page, tmp_path):
    with pages.clean_directory(tmp_path, short=False):
        assert not faults(page, [fence for fence in everything(page) if not fence.note("not run")])


def test_what_is_not_run_says_why_and_is_counted():
    fences = [fence for page in pages.pages() for fence in everything(page)]
    left_out = [command.text for fence in fences if fence.note("not run") for command in fence.commands()]
    all_of_them = [command for fence in fences for command in fence.commands()]
    print(f"{len(all_of_them)} commands in README.md and docs/, {len(left_out)} of them not run here")
    assert all(reason for fence in fences for reason in fence.note("not run"))
    assert len(left_out) <= MOST_NOT_RUN
    assert len(all_of_them) >= 40


def test_what_another_test_runs_is_named_there():
    found = [(page, name) for page in pages.pages() for fence in pages.fences(page) for name in fence.note("run by")]
    assert found
    assert all(page.name in (pages.ROOT / name).read_text(encoding="utf-8") for page, name in found)


def test_no_comment_is_one_that_nothing_reads():
    known = (
        *("not run: ", "run by: ", "long", "before: ", "beside ", "Ctrl-C after "),
        *("on digits", "with CIFAR-10", "varies"),
    )
    for page in pages.pages():
        for note in re.findall(r"^<!-- (.*) -->$", page.read_text(), flags=re.MULTILINE):
            assert note.startswith(known), f"{page}: {note}"
        read = [note for fence in pages.fences(page) for note in fence.notes]
        assert len(read) == len(re.findall(r"^<!-- .* -->$", page.read_text(), flags=re.MULTILINE)), page


# ------------------------------------------------------------------------------------------------ the tester, tested


def page_of(tmp_path, monkeypatch, text):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(text)
    return tmp_path / "page.md"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```sh\ntrue\n```", None),
        ("```sh\nfalse\n```", "ends with 1"),
        ("```sh\necho one \\\n    two\n```", None),
        ("```sh\ncat > made <<'END'\n# one\nEND\ngrep -q one made\n```", None),
        ("```python\nx = 1\n```\n```python\nassert x == 1\n```", None),
        ("```python\nassert False\n```", "AssertionError"),
        ("```\n$ echo hello\nhello\n```", None),
        ("```\n$ echo hello\nhallo\n```", "shown is:\nhallo"),
        ("```\n$ echo 1; echo two\n2\ntwo\n```", None),
        ("```\n$ echo 1; echo two\n...\ntwo\n```", None),
        ("```\n$ echo 1; echo two\n...\nthree\n```", "shown is:"),
        ("```\n$ echo /home/ann/x.db\n/tmp/b/y.db\n```", None),
        ("```\n$ echo two; echo 1\ntwo\n```", "shown is:"),
        ("<!-- varies -->\n```\n$ echo two; echo 1 no\ntwo\n2 yes\n```", None),
        ("<!-- varies -->\n```\n$ echo two\none\n```", "'one'"),
        ("```\n$ echo error: no; exit 3\nerror: no\n```", None),
        ("```\n$ echo error: no\nerror: no\n```", "ends with 0"),
        ("```\n$ python -c '\nprint(\"a\")'\na\n```", None),
        ("<!-- before: echo is > made -->\n```sh\ntest -f made\n```", None),
        ("```yaml\na: b\n```\n```\nno command\n```", None),
        (f"```\n$ printf 'run  %032d' 7\nrun  {'b' * 32}\n$ echo {'b' * 32} RUN_ID > ids\n```\n"
         "```sh\ntest \"$(cat ids)\" = \"$(printf '%032d %032d' 7 7)\"\n```", None),
    ],
)  # fmt: skip
def test_what_a_page_shows_is_held_against_what_is_printed(text, fault, tmp_path, work, monkeypatch):
    page = page_of(tmp_path, monkeypatch, text)
    found = faults(page, everything(page))
    assert (fault in found[0]) if fault else not found, found


def test_what_is_printed_anew_leaves_out_the_same_parts():
    printed = ["first", "second", "third", "fourth"]
    assert pages.printed_anew(["old"], printed) == printed
    assert pages.printed_anew(["old", "...", "older"], printed) == ["first", "...", "fourth"]
    assert pages.printed_anew(["..."], printed) == ["..."]
