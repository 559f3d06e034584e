import collections
import contextlib
import errno
import http.server
import io
import threading
import urllib.error

import numpy as np
import pytest

from crlx.envs.ogbench import LOCAL, MIRRORS, DatasetError, collect, download, load

NAME = "pointmaze-medium-navigate-v0"
FILES = (f"{NAME}.npz", f"{NAME}-val.npz")


def archive(rows=4, save=np.savez_compressed):
    terminals = np.zeros(rows, bool)
    terminals[-1] = True
    buffer = io.BytesIO()
    values = np.random.default_rng(rows).normal(size=(rows, 2)).astype(np.float32)
    save(buffer, observations=values, actions=values, terminals=terminals)
    return buffer.getvalue()


GOOD = archive()
PLAIN = archive(save=np.savez)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests[self.path] += 1
        replies = self.server.replies.get(self.path, [])
        status, body, size = replies.pop(0) if replies else (404, b"", None)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if size is None else size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.replies = {}
        running.requests = collections.Counter()
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ok(body=GOOD):
    return 200, body, None


def fetch(server, directory, mirrors=("/{file}",), **options):
    urls = [server.url + mirror for mirror in mirrors]
    return download(NAME, directory, mirrors=urls, backoff=0.001, **options)


def test_both_files_arrive_and_are_loaded(server, tmp_path):
    val = archive(6)
    server.replies = {f"/{FILES[0]}": [ok()], f"/{FILES[1]}": [ok(val)]}
    directory = tmp_path / "deep" / "data"
    seen = []
    path = fetch(server, directory, progress=lambda *now: seen.append(now))
    assert path == directory / FILES[0]
    assert [(directory / file).read_bytes() for file in FILES] == [GOOD, val]
    assert seen == [(len(GOOD), len(GOOD)), (len(val), len(val))]
    train, validation = load(NAME, dataset_dir=directory, mirrors=())
    assert (len(train.actions), len(validation.actions)) == (4, 6)


def test_files_that_are_there_are_not_fetched(server, tmp_path):
    (tmp_path / FILES[0]).write_bytes(GOOD)
    server.replies = {f"/{FILES[1]}": [ok()]}
    fetch(server, tmp_path)
    assert server.requests == {f"/{FILES[1]}": 1}


def test_mirrors_are_tried_in_order(server, tmp_path):
    for file in FILES:
        server.replies[f"/b/{NAME}/{file}"] = [ok()]
        server.replies[f"/c/{file}"] = [ok(b"never asked for")]
    fetch(server, tmp_path, ("/a/{file}", "/b/{name}/{file}", "/c/{file}"))
    # A 404 does not go away, so it is not asked for again.
    assert server.requests == {f"/a/{f}": 1 for f in FILES} | {f"/b/{NAME}/{f}": 1 for f in FILES}


@pytest.mark.parametrize(
    "bad, reason",
    [
        ((503, b"", None), "503"),
        ((200, GOOD[:-50], len(GOOD)), f"{len(GOOD) - 50} bytes arrived instead of {len(GOOD)}"),
        ((200, b"<html>Welcome</html>", None), "not an npz archive"),
        ((200, GOOD[:-50], None), "not an npz archive"),
        ((200, GOOD[:100] + b"????" + GOOD[104:], None), "archive"),
        ((200, PLAIN[:220] + b"????" + PLAIN[224:], None), "observations.npy .* is damaged"),
        ((200, b"", None), "not an npz archive"),
    ],
)
def test_a_bad_answer_is_asked_for_again(server, tmp_path, bad, reason):
    server.replies = {f"/{FILES[0]}": [bad, bad, ok()], f"/{FILES[1]}": [bad, bad, bad, ok()]}
    with pytest.raises(DatasetError, match=reason):
        fetch(server, tmp_path)
    assert server.requests == {f"/{file}": 3 for file in FILES}
    assert [path.name for path in tmp_path.iterdir()] == [FILES[0]]
    assert (tmp_path / FILES[0]).read_bytes() == GOOD


@pytest.mark.parametrize(
    "name, advice",
    [
        (NAME, "--dataset pointmaze-medium-navigate-local"),
        ("antmaze-medium-navigate-v0", "cannot be collected here"),
    ],
)
def test_when_nothing_works_the_message_says_what_to_do(server, tmp_path, name, advice):
    mirrors = [f"{server.url}/a/{{file}}", f"{server.url}/b/{{file}}"]
    with pytest.raises(DatasetError) as error:
        download(name, tmp_path, mirrors=mirrors)
    message = str(error.value)
    for words in (f"{server.url}/a/{name}.npz", f"{server.url}/b/{name}.npz", "404"):
        assert words in message
    assert "--dataset-path" in message
    assert advice in message
    assert not list(tmp_path.iterdir())


def test_nothing_listens(server, tmp_path):
    server.server_close()
    with pytest.raises(DatasetError, match="refused"):
        fetch(server, tmp_path)


def test_local_data_never_stand_in_for_official_ones(tmp_path):
    local = f"{NAME.removesuffix('-v0')}-local"
    assert local in LOCAL
    collect(local, tmp_path, episodes=1, length=2)
    with pytest.raises(DatasetError, match="could not be downloaded"):
        load(NAME, dataset_dir=tmp_path, local_dir=tmp_path, mirrors=())


def test_the_opener_is_asked_three_times_per_mirror(tmp_path):
    asked = []

    def opener(url):
        asked.append(url)
        raise urllib.error.URLError("no route")

    with pytest.raises(DatasetError, match="no route"):
        download(NAME, tmp_path, opener=opener, backoff=0.0)
    expected = [mirror.format(name=NAME, file=FILES[0]) for mirror in MIRRORS for _ in range(3)]
    assert asked == expected
    assert asked[0] == f"https://rail.eecs.berkeley.edu/datasets/ogbench/{FILES[0]}"


def test_a_full_disk_is_not_taken_for_a_broken_mirror(tmp_path):
    @contextlib.contextmanager
    def opener(url):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    with pytest.raises(OSError, match="No space"):
        download(NAME, tmp_path, opener=opener)


def test_an_interrupted_download_leaves_nothing(server, tmp_path):
    server.replies = {f"/{FILES[0]}": [ok()]}

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server, tmp_path, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_several_may_fetch_the_same_file(server, tmp_path):
    server.replies = {f"/{file}": [ok() for _ in range(4)] for file in FILES}
    together = threading.Barrier(4)

    def slow(done, total):
        # Whoever comes after the others have finished would wait in vain.
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=1)

    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(server, tmp_path, progress=slow)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / FILES[0]] * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert all((tmp_path / file).read_bytes() == GOOD for file in FILES)
