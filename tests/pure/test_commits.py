"""Addresses, references and versions, as pure functions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.commits import (
    Address,
    Commit,
    Reach,
    Revision,
    choose_default_branch,
    hidden,
    nearest,
    next_version,
    parse_address,
    parse_revision,
    printable,
    rewritten,
    title_of,
    version_tags,
)
from penstock.errors import SourceError

WORDS = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
HOSTS = st.builds(lambda a, b: f"{a}.{b}", st.from_regex(r"[a-zA-Z0-9]{1,8}", fullmatch=True), st.just("example"))
PATHS = st.lists(WORDS, min_size=1, max_size=4).map("/".join)


@given(HOSTS, PATHS, WORDS, st.booleans(), st.booleans())
def test_every_spelling_of_a_repository_has_one_identity(
    host: str, path: str, user: str, ends_in_git: bool, ends_in_slash: bool
) -> None:
    """https, ssh and scp spellings, users, default ports, capitals, `.git` and slashes make no difference."""
    end = (".git" if ends_in_git else "") + ("/" if ends_in_slash else "")
    spellings = [
        f"https://{host}/{path}{end}",
        f"https://{user}@{host.upper()}:443/{path}{end}",
        f"https://{user}:secret@{host}//{path}{end}",
        f"ssh://{user}@{host}:22/{path}{end}",
        f"SSH://{host}/{path}{end}",
        f"git+ssh://{user}@{host}/{path}{end}",
        f"{user}@{host}:{path}{end}",
        f"{host}:/{path}{end}",
    ]
    assert {parse_address(s).identity for s in spellings} == {f"{host.lower()}/{path}"}
    assert {parse_address(s).name for s in spellings} == {path.rpartition("/")[2]}


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_one_sentence(text: str) -> None:
    """No text makes the parser fail in another way, and no address it lets through is an option or a command."""
    try:
        address = parse_address(text)
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either way is right)
    else:
        assert not address.url.startswith("-")
        assert "::" not in address.url.partition("/")[0] or address.url.startswith("[")
        assert printable(address.url) == address.url
        assert address.identity


@given(st.sampled_from(["ext::", "EXT::", "fd::", "::", "a-b::"]), st.text(alphabet="ab c%S/-", max_size=20))
def test_no_transport_helper_is_an_address(helper: str, rest: str) -> None:
    """Whatever follows `name::`, it is refused."""
    with pytest.raises(SourceError, match="run a command"):
        parse_address(helper + rest)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("x" * 5000, "too long"),
        ("-oProxyCommand=x", "dash"),
        ("https://h/a\nb", "control"),
        ("a\u2028b", "control"),
        ("git://h/a", "uses git"),
        ("ftp://h/a", "uses ftp"),
        ("http://example.org/a", "use https"),
        ("https:///a", "no valid host"),
        ("https://h:99999/a", "no valid URL"),
        ("https://h:0/a", "no valid host"),
        ("https://h:x/a", "no valid URL"),
        ("https://[::1/a", "no valid URL"),
        ("https://h/", "names no repository"),
        ("https://h/.git", "names no repository"),
        ("https://h/a?token=x", "after"),
        ("https://h/a#x", "after"),
        ("https://u:@h/a", "empty password"),
        ("https://h/%0a", "names no repository"),
        ("ssh://-oProxyCommand=x/a", "no valid host"),
        ("ssh://%2doProxyCommand=x/a", "no valid host"),
        ("ssh://-l@h/a", "no valid user"),
        ("ssh://%2dl@h/a", "no valid user"),
        ("-x@h:a", "dash"),
        ("h:-a", "names no repository"),
        ("h:", "names no repository"),
        ("file://other/a", "another machine"),
        ("file:///a%0ab", "control"),
    ],
)
def test_what_is_refused_as_an_address(text: str, says: str) -> None:
    """Each refused address is told why, in one sentence."""
    with pytest.raises(SourceError, match=re.escape(says)):
        parse_address(text)


def test_a_password_is_kept_apart() -> None:
    """The URL that git is given has no password, and no message shows one."""
    address = parse_address("https://ada:s3cret@example.org:8443/a/b.git")
    assert address == Address(
        Reach.HTTPS,
        "https://ada@example.org:8443/a/b.git",
        "example.org:8443/a/b",
        "b",
        "https://ada:s3cret@example.org:8443/a/b.git",
    )
    assert hidden("fatal: https://ada:s3cret@h/x, https://t@k/y") == "fatal: https://h/x, https://k/y"
    with pytest.raises(SourceError) as caught:
        parse_address("https://ada:s3cret@h/a?b")
    assert "s3cret" not in str(caught.value)


def test_a_user_alone_stays_in_the_url() -> None:
    """A user name chooses among credentials, so git is given it; a token in its place is no part of the identity."""
    address = parse_address("https://ada@example.org/a")
    assert (address.url, address.identity, address.secret) == ("https://ada@example.org/a", "example.org/a", None)


@pytest.mark.parametrize(
    ("text", "identity", "name"),
    [
        ("/x/y", "/x/y", "y"),
        ("/x/y/.git", "/x/y", "y"),
        ("/x/y.git/", "/x/y.git", "y"),
        ("file:///x/a%20b", "/x/a b", "a b"),
        ("/", "/", "/"),
        ("http://localhost:3000/a", "localhost:3000/a", "a"),
        ("ssh://git@[::1]:2222/a", "[::1]:2222/a", "a"),
    ],
)
def test_identities_of_folders_and_odd_hosts(text: str, identity: str, name: str) -> None:
    """Folders are named by their path, other ports stay in the identity."""
    address = parse_address(text)
    assert (address.identity, address.name) == (identity, name)


def test_rewriting_takes_the_longest_rule() -> None:
    """`insteadOf` works as git does it: the longest fitting prefix, once."""
    rules = [("https://h/", "gh:"), ("ssh://h/own/", "gh:own/"), ("x", "")]
    assert rewritten("gh:own/a", rules) == "ssh://h/own/a"
    assert rewritten("gh:a", rules) == "https://h/a"
    assert rewritten("other:a", rules) == "other:a"


@given(st.text(max_size=40))
def test_any_text_is_a_revision_or_one_sentence(text: str) -> None:
    """What is let through is no option, no range, no reflog entry, and has nothing invisible in it."""
    try:
        revision = parse_revision(text)
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either way is right)
    else:
        assert not revision.name.startswith("-")
        assert not any(c in revision.name for c in " :?*[\\~^\n\r\0")
        assert ".." not in revision.name
        assert "@{" not in revision.name


@given(PATHS, st.from_regex(r"([~^][0-9]{0,3}){0,3}", fullmatch=True))
def test_usual_names_are_revisions(path: str, steps: str) -> None:
    """Names with slashes and steps back come through as they are."""
    assert parse_revision(path + steps) == Revision(path, steps)


def test_at_is_head() -> None:
    """`@~1` is `HEAD~1`, as everywhere in git; only hexadecimal names may be objects."""
    assert parse_revision("@~1") == Revision("HEAD", "~1")
    assert parse_revision("abcd").may_be_object
    assert not parse_revision("abc").may_be_object
    assert not parse_revision("main").may_be_object


def test_titles_are_fit_to_be_shown() -> None:
    """A title is the first line that holds something, without control characters, of bounded length."""
    assert title_of("\n \x1b[31mred\x07\u202e \r\nsecond") == "[31mred"
    assert title_of("") == ""
    assert len(title_of("x" * 999)) == 200


def test_the_nearest_name() -> None:
    """A slip of the fingers finds its name, a strange word finds none."""
    assert nearest("mian", ["dev", "main"]) == "main"
    assert nearest("zzz", ["dev", "main"]) is None


def test_the_default_branch() -> None:
    """The remote's choice, else main, else master, else the only one, else none."""
    assert choose_default_branch("dev", ["main"]) == "dev"
    assert choose_default_branch(None, ["master", "main"]) == "main"
    assert choose_default_branch(None, ["master", "x"]) == "master"
    assert choose_default_branch(None, ["x", "x"]) == "x"
    assert choose_default_branch(None, ["x", "y"]) is None


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v1.2.3", "1.2.3"),
        ("1.2.3", "1.2.3"),
        ("v1.4.0-rc1", "1.4.0rc1"),
        ("v1.4.0-RC", "1.4.0rc0"),
        ("1.0.post2", "1.0.post2"),
        ("v2026.01.05", "2026.1.5"),
        ("v1!2.0", "1!2.0"),
        ("1.0.dev3", None),
        ("v1.0+linux", None),
        ("v1-linux", None),
        ("release-1", None),
        ("v1.2.3-4-gabc1234", None),
        ("2026-01-05", None),
        ("latest", None),
    ],
)
def test_which_tags_are_versions(tag: str, version: str | None) -> None:
    """Tags that are PEP 440 versions count, in normal spelling; all others are passed over."""
    assert [t.version for t in version_tags([(tag, "c")])] == ([] if version is None else [version])


def test_tags_are_ordered_as_versions_and_contradictions_are_dropped() -> None:
    """1.10 is above 1.9 and its own candidates; a version that two commits claim names neither."""
    names = ["1.10", "v1.9", "1.10rc1", "1.9.post1"]
    assert [t.version for t in version_tags((n, n) for n in names)] == ["1.9", "1.9.post1", "1.10rc1", "1.10"]
    assert version_tags([("v1.0", "a"), ("1.0", "b")]) == ()
    assert [t.sha for t in version_tags([("v1.0", "a"), ("1.0", "a")])] == ["a"]


@pytest.mark.parametrize(
    ("tag", "distance", "version"),
    [
        ("1.3.0", 12, "1.3.1.dev12+g1a2b3c4"),
        ("1.4.0rc1", 2, "1.4.0rc2.dev2+g1a2b3c4"),
        ("1.3.0.post1", 1, "1.3.0.post2.dev1+g1a2b3c4"),
        ("2", 1, "3.dev1+g1a2b3c4"),
        (None, 5, "0.0.0.dev5+g1a2b3c4"),
    ],
)
def test_versions_between_tags(tag: str | None, distance: int, version: str) -> None:
    """A commit after a tag is a development version of what comes next; a dirty one says so."""
    assert next_version(tag, distance, "1a2b3c4") == version
    assert next_version(tag, distance, "1a2b3c4", dirty=True) == f"{version}.dirty"


@given(
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)),
    st.sampled_from(["", "a1", "rc2", ".post1"]),
    st.integers(1, 5000),
)
def test_a_version_lies_above_its_tag_and_grows(numbers: tuple[int, int, int], end: str, distance: int) -> None:
    """Each commit after a tag is above the tag and above the commits before it."""
    from dunamai import Version  # noqa: PLC0415 (slow to import, used here only)
    from packaging.version import Version as Pep440  # noqa: PLC0415

    tag = ".".join(map(str, numbers)) + end
    (found,) = version_tags([(tag, "c")])
    one, two = (Pep440(next_version(found.version, d, "abcdef0")) for d in (distance, distance + 1))
    assert Pep440(found.version) < one < two
    assert Version.parse(tag)


def test_the_short_name_of_a_commit() -> None:
    """Seven characters name a commit for people."""
    assert Commit("0123456789" * 4, None, (), None, "a", "t", "2026-01-01").short == "0123456"
