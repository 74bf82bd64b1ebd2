"""The live page: what it answers, to whom, and that it follows the run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.records.summary import Summary
from fedoel.simulations.page.access import HEADERS, Access
from fedoel.simulations.page.app import make_app, serve
from fedoel.simulations.page.render import render
from fedoel.simulations.page.watched import Watched

from .conftest import Save

TOKEN = "a-token-that-nobody-guesses"


def client(watched: Watched, host: str = "127.0.0.1", token: str = "") -> TestClient:
    return TestClient(make_app(watched, Access(host, token)), base_url=f"http://{host}:8765", follow_redirects=False)


def main_of(page: str) -> str:
    return re.sub(r"<main[^>]*>", "<main>", page[page.index("<main") : page.index("</main>")])


def test_the_page_and_the_file_say_the_same(watched: Watched) -> None:
    live, file = client(watched).get("/").text, render(watched.view())
    assert main_of(live) == main_of(file)
    assert "<script" not in file and "<link" not in file and "--learned" in file


def test_the_page_needs_nothing_from_elsewhere_and_has_no_inline_code(watched: Watched) -> None:
    page = client(watched).get("/").text
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,", "style.css", "reload.js"]
    assert "<style" not in page and "style=" not in page and not re.search(r"\son\w+=", page)
    assert 'name="viewport"' in page and "<caption>" in page and 'role="img" aria-label="Win rate of all games' in page
    for name, kind in (("style.css", "text/css"), ("reload.js", "text/javascript")):
        answer = client(watched).get(f"/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
        assert "http" not in answer.text


@pytest.mark.parametrize("path", ["/", "/version", "/style.css", "/reload.js", "/nothing"])
def test_every_answer_has_the_headers_and_none_is_for_other_origins(watched: Watched, path: str) -> None:
    answer = client(watched).get(path, headers={"Origin": "http://elsewhere.example"})
    assert dict(HEADERS.items()) == {name: answer.headers[name] for name in HEADERS}
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(watched: Watched, method: str) -> None:
    assert client(watched).request(method, "/").status_code == 405


@pytest.mark.parametrize("path", ["/summary.json", "/config.json", "/../summary.json", "/%2e%2e/config.json", "/a.py"])
def test_no_file_of_the_run_is_served(watched: Watched, path: str) -> None:
    assert client(watched).get(path).status_code == 404


@pytest.mark.parametrize(
    ("host", "names", "status"),
    [
        ("127.0.0.1", ("localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765"), 200),
        ("127.0.0.1", ("attacker.example", "127.0.0.1.attacker.example", "192.168.1.7", "", "[", "localhost."), 421),
        ("192.168.1.7", ("192.168.1.7:8765", "127.0.0.1"), 401),
        ("0.0.0.0", ("192.168.1.7", "[fe80::1]:8765"), 401),
        ("0.0.0.0", ("attacker.example:8765", "192.168.1.7.attacker.example"), 421),
    ],
)
def test_only_requests_under_a_name_of_the_page_are_answered(
    watched: Watched, host: str, names: tuple[str, ...], status: int
) -> None:
    token = "" if host == "127.0.0.1" else TOKEN
    answers = [client(watched, host, token).get("/version", headers={"Host": name}).status_code for name in names]
    assert answers == [status] * len(names)


def test_other_machines_need_the_token_which_becomes_a_cookie(watched: Watched) -> None:
    visitor = client(watched, "192.168.1.7", TOKEN)
    for path in ("/", "/version", "/style.css", "/?token=", "/?token=a-token-that-nobody-guesse", "/?token=%C3%A9"):
        answer = visitor.get(path)
        assert answer.status_code == 401 and "21" not in answer.text
    answer = visitor.get(f"/?token={TOKEN}")
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert re.search(r"HttpOnly.*SameSite=strict", answer.headers["set-cookie"])
    assert visitor.get("/").status_code == visitor.get("/version").status_code == 200
    visitor.cookies.clear()
    assert visitor.get("/", headers={"Cookie": "fedoel-dash=wrong"}).status_code == 401


def test_the_page_follows_the_run(begun: Path, save: Save, summary: Summary) -> None:
    visitor = client(Watched(begun))
    before, stamp = visitor.get("/"), visitor.get("/version").text
    assert "36\N{NO-BREAK SPACE}%" in before.text and f'data-stamp="{stamp}"' in before.text
    assert visitor.get("/version").text == stamp
    (begun / "events.jsonl").unlink()
    save(begun, summary)
    assert visitor.get("/version").text != stamp
    assert "52\N{NO-BREAK SPACE}%" in visitor.get("/").text


def test_a_folder_that_is_removed_is_no_error_of_the_server(folder: Path) -> None:
    visitor = client(Watched(folder))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert visitor.get("/version").status_code == 200
    assert "No cycle has ended yet" in visitor.get("/").text


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 99999), ("192.0.2.1", 0), ("no such host", 0)])
def test_an_address_that_cannot_be_listened_on_is_refused(folder: Path, host: str, port: int) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on .* choose another --port"):
        serve(folder, host, port)
