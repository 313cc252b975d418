"""Downloads: once per machine, whole and checked or not at all, by a server that does its worst."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from image_files import archive, packed, small_cifar, small_fashion

from node.__main__ import main
from node.images.fetch import download, fetch
from node.images.files import find, read
from node.images.store import open_images
from protocol.errors import BadInput, RunError

FASHION, FASHION_CONTENTS = small_fashion()
CIFAR, CIFAR_CONTENTS = small_cifar()
PUBLISHED = {name + ".gz": packed(data) for name, data in FASHION_CONTENTS.items()} | {
    CIFAR.archive: archive(CIFAR_CONTENTS)
}
WAIT_WALL_S = 60


class Mirror:
    """A server of the small sets: what it was asked for, and what it does instead of its duty."""

    def __init__(self, url):
        self.url = url
        self.asked = []
        self.files = dict(PUBLISHED)
        self.sends_half = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.half_is_out = threading.Event()


@pytest.fixture
def mirror():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/")
            mirror.asked.append(name)
            if name not in mirror.files:
                self.send_error(404)
                return
            data = mirror.files[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            mirror.half_is_out.set()
            if not mirror.may_go_on.wait(WAIT_WALL_S) or mirror.sends_half:
                return
            self.wfile.write(data[len(data) // 2 :])

        def log_message(self, *_):
            pass

    with serving(Handler) as url:
        mirror = Mirror(url)
        yield mirror
        mirror.may_go_on.set()


@contextmanager
def serving(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HEARSAY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HEARSAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data"


def left_in(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(("image_set", "contents"), [(FASHION, FASHION_CONTENTS), (CIFAR, CIFAR_CONTENTS)])
def test_what_is_not_there_is_downloaded_whole_and_checked(mirror, folder, capsys, image_set, contents):
    download(image_set, folder, base_url=mirror.url)
    assert mirror.asked == list(image_set.downloads)
    assert left_in(folder) == sorted(f"{image_set.folder}/{name}" for name in image_set.downloads)
    files = find(image_set, folder)
    assert read(image_set, files) == contents
    assert {file.stat().st_mode & 0o777 for file in files.values()} == {0o644}, "a data folder may be shared"
    lines = capsys.readouterr().err.splitlines()
    for name in image_set.downloads:
        assert lines.count(f"node: {name}: 100 % of {len(PUBLISHED[name]) / 1e6:.3g} MB") == 1


def test_only_what_is_missing_is_downloaded(mirror, folder):
    download(FASHION, folder, base_url=mirror.url)
    (folder / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    mirror.asked.clear()
    for _ in range(2):
        download(FASHION, folder, base_url=mirror.url)
    assert mirror.asked == ["t10k-labels-idx1-ubyte.gz"]


def test_some_batches_are_enough_and_nothing_is_downloaded(mirror, folder):
    folder.mkdir()
    for name in ("data_batch_3.bin", "test_batch.bin"):
        (folder / name).write_bytes(CIFAR_CONTENTS[name])
    download(CIFAR, folder, base_url=mirror.url)
    assert mirror.asked == []


def test_two_at_once_download_once(mirror, folder):
    """The second waits for the first, and then finds everything there."""
    mirror.may_go_on.clear()
    with ThreadPoolExecutor(3) as pool:
        downloads = [pool.submit(download, FASHION, folder, base_url=mirror.url) for _ in range(3)]
        assert mirror.half_is_out.wait(WAIT_WALL_S)
        mirror.may_go_on.set()
        for each in downloads:
            each.result(WAIT_WALL_S)
    assert sorted(mirror.asked) == sorted(FASHION.downloads)


def test_a_wrong_checksum_is_refused_by_name_and_nothing_kept(mirror, folder):
    mirror.files["t10k-images-idx3-ubyte.gz"] = packed(b"something else")
    with pytest.raises(BadInput) as error:
        download(FASHION, folder, base_url=mirror.url)
    md5 = FASHION.downloads["t10k-images-idx3-ubyte.gz"]
    assert str(error.value) == (
        f"{mirror.url}t10k-images-idx3-ubyte.gz: wrong checksum, not MD5 {md5}; nothing was kept"
    )
    assert left_in(folder) == [
        "fashion-mnist/train-images-idx3-ubyte.gz",
        "fashion-mnist/train-labels-idx1-ubyte.gz",
    ]


def test_a_transfer_that_breaks_off_leaves_no_half_file(mirror, folder):
    mirror.sends_half = True
    with pytest.raises(RunError, match=r"cifar10: not in .* did not deliver it .*docs/data\.md"):
        download(CIFAR, folder, base_url=mirror.url)
    assert left_in(folder) == []
    mirror.sends_half = False
    download(CIFAR, folder, base_url=mirror.url)
    assert left_in(folder) == ["cifar-10/cifar-10-binary.tar.gz"]


def test_a_file_that_no_server_has_and_a_server_that_is_not_there(mirror, folder):
    mirror.files.clear()
    with pytest.raises(RunError, match="HTTPError"):
        download(CIFAR, folder, base_url=mirror.url)
    with serving(BaseHTTPRequestHandler) as gone:
        pass
    with pytest.raises(RunError, match="ConnectionError"):
        download(CIFAR, folder, base_url=gone)
    assert left_in(folder) == []


def test_a_server_that_falls_silent_is_given_up(mirror, folder, monkeypatch):
    monkeypatch.setattr("node.images.fetch.SILENCE_WALL_S", 0.2)
    mirror.may_go_on.clear()
    with pytest.raises(RunError, match="did not deliver"):
        download(CIFAR, folder, base_url=mirror.url)
    assert left_in(folder) == []


def test_a_folder_that_cannot_be_written_is_bad_input(mirror, folder):
    folder.write_text("a file where the folder would be")
    with pytest.raises(BadInput, match=r"cannot be written .*HEARSAY_DATA"):
        download(CIFAR, folder, base_url=mirror.url)


def test_fetching_downloads_and_unpacks_once(mirror, folder, tmp_path):
    published = replace(CIFAR, url=mirror.url)
    found = f"cifar10: all of it, from {folder}"
    assert fetch(published) == found
    (kept,) = (tmp_path / "cache" / "unpacked").iterdir()
    written = kept.stat().st_mtime_ns
    assert fetch(published) == found
    assert mirror.asked == [CIFAR.archive]
    assert kept.stat().st_mtime_ns == written
    assert len(open_images(published).train_y) == 30


def test_files_that_are_wrong_are_refused_and_never_replaced(mirror, folder):
    folder.mkdir()
    (folder / CIFAR.archive).write_bytes(b"mine")
    with pytest.raises(BadInput, match="wrong checksum"):
        fetch(replace(CIFAR, url=mirror.url))
    assert mirror.asked == []
    assert (folder / CIFAR.archive).read_bytes() == b"mine"


# --- as a command

FETCH = """\
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from image_files import small_cifar
from node import __main__
from node.images import catalogue
catalogue.IMAGE_SETS = {"cifar10": replace(small_cifar()[0], url=sys.argv[2])}
sys.exit(__main__.main(["--fetch", sys.argv[3]]))
"""


@pytest.fixture
def fetching(mirror, folder, tmp_path):
    """Start `python -m node --fetch` with a small set that lies on the mirror."""
    file = tmp_path / "experiment.toml"
    file.write_text('[data]\ndataset = "cifar10"\n')
    with subprocess.Popen(
        [sys.executable, "-c", FETCH, str(Path(__file__).parent), mirror.url, str(file)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.kill()


def test_says_what_was_found(fetching, folder):
    _, stderr = fetching.communicate(timeout=WAIT_WALL_S)
    assert fetching.returncode == 0
    assert stderr.splitlines()[-2:] == [
        f"node: {CIFAR.archive}: 100 % of {len(PUBLISHED[CIFAR.archive]) / 1e6:.3g} MB",
        f"node: cifar10: all of it, from {folder}",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_at_once_and_leaves_no_half_file(mirror, request, folder, number):
    mirror.may_go_on.clear()
    process = request.getfixturevalue("fetching")
    assert mirror.half_is_out.wait(WAIT_WALL_S)
    (draft,) = left_in(folder)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=WAIT_WALL_S)
    assert process.returncode == 130
    assert stderr == "node: interrupted; no half file was kept\n"
    assert left_in(folder) == [], f"{draft} is gone"


def test_a_set_that_is_no_files_needs_nothing(mirror, folder, tmp_path, capsys):
    file = tmp_path / "experiment.toml"
    file.write_text("")
    assert main(["--fetch", str(file)]) == 0
    assert capsys.readouterr() == ("", "")
    assert not folder.exists()
