"""Downloads from a server on this machine that breaks off, lies, refuses, or cannot resume."""

import errno
import hashlib
import http.server
import os
import re
import threading

import pytest

from firstspike.data import DownloadError
from firstspike.data.download import download, md5_of

CONTENT = bytes(range(256)) * 2000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; each attribute makes it misbehave."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.cuts: list[int] = []  # break off after so many bytes, once each
        self.ranges = True
        self.status: int | None = None
        self.requests: list[str | None] = []

    def url(self, name="file.bin"):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append(asked)
        if server.status:
            self.send_error(server.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            total = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(server, path, urls=None, **options):
    return download(urls or [server.url()], path, MD5, pause=0, timeout=5, **options)


def test_a_whole_file(server, tmp_path, capsys):
    path = tmp_path / "new" / "file.bin"
    seen = []
    assert fetch(server, path, progress=lambda done, total: seen.append((done, total))) == path
    assert path.read_bytes() == CONTENT and os.listdir(path.parent) == ["file.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)
    fetch(server, path)
    assert server.requests == [None]  # a file that is there is not fetched again


def test_the_progress_bar_goes_to_stderr(server, tmp_path, capsys):
    fetch(server, tmp_path / "file.bin")
    out, err = capsys.readouterr()
    assert out == "" and "file.bin" in err


def test_broken_connections_resume_where_they_stopped(server, tmp_path):
    server.cuts = [100_000, 50_000]
    fetch(server, tmp_path / "file.bin")
    assert server.requests == [None, "bytes=100000-", "bytes=150000-"]
    assert md5_of(tmp_path / "file.bin") == MD5


def test_a_later_run_resumes(server, tmp_path):
    path = tmp_path / "file.bin"
    server.cuts = [1000, 1000]
    with pytest.raises(DownloadError, match="closed after 2,000 of 512,000 bytes"):
        fetch(server, path, attempts=2)
    assert os.listdir(tmp_path) == ["file.bin.part"]
    fetch(server, path)
    assert server.requests[-1] == "bytes=2000-" and path.read_bytes() == CONTENT


def test_a_complete_part_needs_only_its_name(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "file.bin")
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges, server.cuts = False, [100_000]
    fetch(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"stale" * 1000, b"x" * (len(CONTENT) + 7)])
def test_a_wrong_part_is_thrown_away(server, tmp_path, part):
    (tmp_path / "file.bin.part").write_bytes(part)
    fetch(server, tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_wrong_file_is_replaced_only_by_the_right_one(server, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"earlier")
    server.content = b"tampered" * 100
    with pytest.raises(DownloadError, match=f"the MD5 sum .* not the published {MD5}"):
        fetch(server, path)
    assert path.read_bytes() == b"earlier" and os.listdir(tmp_path) == ["file.bin"]
    server.content = CONTENT
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_mirrors_and_the_message_when_none_answers(server, tmp_path):
    dead = "http://127.0.0.1:9/file.bin"
    path = tmp_path / "file.bin"
    fetch(server, path, [dead, server.url()])
    assert path.read_bytes() == CONTENT
    path.unlink()
    server.status = 404
    with pytest.raises(DownloadError) as info:
        fetch(server, path, [dead, server.url()], attempts=2)
    message = str(info.value)
    assert f"{dead}: [Errno {errno.ECONNREFUSED}] Connection refused" in message
    assert f"{server.url()}: the server answered 404 Not Found" in message
    assert message.endswith(f"fetch the file elsewhere and put it at {path}.")
    assert len(server.requests) == 2  # a 404 is not tried twice


def test_server_errors_are_tried_again(server, tmp_path):
    server.status = 503
    with pytest.raises(DownloadError, match="answered 503"):
        fetch(server, tmp_path / "file.bin", attempts=3)
    assert len(server.requests) == 3


def test_a_full_disk_stops_at_once(server, tmp_path, monkeypatch):
    def full(path, mode):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("firstspike.data.download.open", full, raising=False)
    with pytest.raises(OSError, match=r"could not write .*file\.bin\.part: No space left") as info:
        fetch(server, tmp_path / "file.bin")
    assert not isinstance(info.value, DownloadError) and "resumes" in str(info.value)
    assert len(server.requests) == 1
