"""The page as it is served, asked as its own tab and as an attacker would."""

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.web.conftest import photo
from tests.web.serving import Answer, Server, serving

pytestmark = pytest.mark.browser
if find_spec("gradio") is None:  # not imported here: it is large, and this process does without
    pytest.skip("the page needs the extra web (gradio)", allow_module_level=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, taught: Path) -> Path:
    """What the library and its workspace are in, and what the page must not give away."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copytree(taught, folder / "lib")
    photo(folder / "lib-web" / "images" / "00000.png")
    (folder / "secret.txt").write_text("not for you")
    (folder / "lib-web" / "images" / "link.png").symlink_to(folder / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder / "lib") as server:
        yield server


def file_of(server: Server, path: object, **headers: str) -> Answer:
    return server.ask(f"/gradio_api/file={path}", headers)


def test_the_page_and_its_images_are_served(server: Server, folder: Path) -> None:
    page = server.ask("/")
    assert page.status == 200 and b"mnemon" in page.body and page.headers["x-frame-options"] == "DENY"
    image = file_of(server, folder / "lib-web/images/00000.png")
    assert image.status == 200 and image.headers["content-type"] == "image/png"


def test_the_page_asks_nobody_else(server: Server) -> None:
    policy = server.ask("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "secret.txt",
        "lib-web/../secret.txt",
        "lib-web/images/../../secret.txt",
        "lib-web/%2e%2e/secret.txt",
        "lib-web/%252e%252e/secret.txt",
        "lib-web/images/link.png",
        "lib/library.json",
        "lib/previews/../library.json",
        "lib-web/images",
        "lib-web/images/00000.png%00.txt",
    ],
)
def test_no_file_outside_the_workspace_is_served(server: Server, folder: Path, path: str) -> None:
    answer = file_of(server, f"{folder}/{path}")
    assert answer.status in (400, 403, 404) and b"not for you" not in answer.body and b"fingerprint" not in answer.body


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", quote("/etc/passwd", safe=""), "~/.bashrc"])
def test_no_file_of_the_system_is_served(server: Server, path: str) -> None:
    assert file_of(server, path).status in (403, 404)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {"host": "evil.example"}),
        ("/config", {"origin": "http://evil.example"}),
        ("/gradio_api/queue/join", {"origin": "http://127.0.0.1:1"}),
        ("/gradio_api/file=/x.png", {"sec-fetch-site": "cross-site"}),
        ("/gradio_api/proxy=http://127.0.0.1:1/", {}),
        ("/gradio_api/file=http://127.0.0.1:1/x", {}),
    ],
)
def test_requests_of_other_pages_are_refused(server: Server, path: str, headers: dict[str, str]) -> None:
    assert server.ask(path, headers).status == 403


def test_an_upload_that_is_too_large_is_refused_by_its_head(server: Server) -> None:
    assert server.ask("/gradio_api/upload", {"content-length": str(3 * 2**30)}, "POST").status == 413


def test_an_upload_is_a_file_of_the_pages_own_folder(server: Server) -> None:
    boundary = {"content-type": "multipart/form-data; boundary=x"}
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../../evil.html"\r\n\r\n'
    answer = server.ask("/gradio_api/upload", boundary, "POST", head + b"<script>1</script>\r\n--x--\r\n")
    assert answer.status == 200
    (path,) = json.loads(answer.body)
    assert ".." not in path and "mnemon-web-" in path
    served = file_of(server, path)
    assert "text/html" not in served.headers.get("content-type", "") or "attachment" in served.headers.get(
        "content-disposition", ""
    )
