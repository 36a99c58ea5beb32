from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.exceptions import NotFound

from daemonkit.monitoring.status import STATUS_KEYS
from daemonkit.web import page_files
from daemonkit.web.page_files import INDEX, TYPES, PageFiles

FOLDER = Path(page_files.__file__).parent / "page"
TEXTS = {file.name: file.read_text("utf-8") for file in FOLDER.iterdir()}
SCRIPTS = {name: text for name, text in TEXTS.items() if name.endswith(".js")}
SVG = "http://www.w3.org/2000/svg"


@pytest.fixture
def files() -> Iterator[PageFiles]:
    with Flask(__name__).test_request_context():
        yield PageFiles()


def test_the_frame_is_html(files: PageFiles) -> None:
    response = files.response()

    assert response.status_code == 200
    assert response.get_data(as_text=True) == TEXTS[INDEX]
    assert response.content_type == "text/html; charset=utf-8"


def test_every_file_has_a_type_and_the_headers(files: PageFiles) -> None:
    for name, text in TEXTS.items():
        response = files.response(name)
        headers = {
            key: value
            for key, value in response.headers.items()
            if key not in ("Content-Length", "Content-Type", "Date", "ETag")
        }

        assert response.data == text.encode()
        assert response.content_type == TYPES[Path(name).suffix]
        assert headers == {
            "Content-Security-Policy": page_files.POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }


def test_the_policy_allows_only_the_page_s_own_files() -> None:
    rules = dict(rule.split(" ", 1) for rule in page_files.POLICY.split("; "))

    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


@pytest.mark.parametrize("name", ["none.js", "", "../page_files.py", "/etc/passwd", "page.js\0"])
def test_nothing_else_is_served(files: PageFiles, name: str) -> None:
    with pytest.raises(NotFound):
        files.response(name)


def test_a_file_of_an_editor_is_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "page.js").write_bytes(b"1")
    (tmp_path / "page" / ".page.js.swp").write_bytes(b"2")
    (tmp_path / "page" / "notes").write_bytes(b"3")
    monkeypatch.setattr(page_files, "files", lambda package: tmp_path)

    assert list(PageFiles().files()) == ["page.js"]


def test_the_files_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    files = PageFiles()
    first = files.files()
    monkeypatch.setattr(page_files, "files", None)

    assert files.files() is first


def test_a_file_that_the_client_has_is_not_sent_again() -> None:
    app, files = Flask(__name__), PageFiles()
    app.add_url_rule("/<name>", view_func=files.response)
    client = app.test_client()
    etag = client.get("/page.js").headers["ETag"]

    same = client.get("/page.js", headers={"If-None-Match": etag})

    assert (same.status_code, same.data) == (304, b"")
    assert same.headers["Content-Security-Policy"] == page_files.POLICY
    assert client.get("/page.css", headers={"If-None-Match": etag}).status_code == 200
    assert client.get("/page.js", headers={"If-None-Match": '"an older one"'}).status_code == 200


# What is in the files


def test_no_file_has_an_external_address() -> None:
    found = {
        (name, address)
        for name, text in TEXTS.items()
        for address in re.findall(r"""\w+://[^\s"'`]+|["'(]//[^\s"']+""", text)
    }

    assert {address for _, address in found} == {SVG}


def test_every_file_that_is_named_exists() -> None:
    in_html = re.findall(r'(?:src|href)="(page/[^"]+)"', TEXTS[INDEX])
    in_scripts = re.findall(r'(?:from|import) "\./([^"]+)"', "\n".join(SCRIPTS.values()))

    assert {name.removeprefix("page/") for name in in_html} == {"icon.svg", "page.css", "page.js"}
    assert {*in_scripts, "page.js"} == set(SCRIPTS)
    assert set(TEXTS) == {*SCRIPTS, INDEX, "icon.svg", "page.css"}


def test_the_frame_has_no_inline_code_or_style() -> None:
    page = TEXTS[INDEX]

    assert re.findall(r"<script(?![^>]* src=)|<style|\s(?:on\w+|style)=|javascript:", page) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_text_into_markup_or_code(name: str) -> None:
    sinks = (
        r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|srcdoc|DOMParser|setHTML\w*)\b"
        r"|createContextualFragment|document\.write|\beval\b|\bFunction\(|\bimport\("
        r"|set(?:Timeout|Interval)\([\"'`]|\.cookie\b|localStorage|style=|cssText"
    )

    assert re.findall(sinks, SCRIPTS[name]) == []


def test_addresses_are_relative_so_that_a_proxy_may_add_a_prefix() -> None:
    assert re.findall(r'(?:src|href)="/', TEXTS[INDEX]) == []
    for text in SCRIPTS.values():
        assert re.findall(r"""(?:ask|send|fetch|URL)\(["'`]/""", text) == []


def test_the_daemon_s_own_fields_are_not_shown_as_the_user_s() -> None:
    own = re.search(r"const OWN = new Set\(\[(.*?)\]\)", SCRIPTS["lists.js"], re.DOTALL)

    assert own is not None
    assert set(re.findall(r'"(\w+)"', own[1])) >= STATUS_KEYS


def test_all_files_together_are_small() -> None:
    assert sum(len(text.encode()) for text in TEXTS.values()) < 80_000
