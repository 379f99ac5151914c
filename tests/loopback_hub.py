"""A Hugging Face hub on 127.0.0.1, for the real clients: it serves the repositories of a folder, and writes to them.

`root/{datasets,models}/{user}/{name}/**` are the files of each repository; each has one revision, `main`. Clients
read `HF_ENDPOINT` when they are imported, so what uses the hub runs in a process of its own: `hub.run(code)`. The hub
is that process's HTTP proxy too: what is meant for another host arrives here, is refused and is kept in `hub.strays`.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

API = re.compile(
    r"/api/(?P<kind>datasets|models)/(?P<repo>[^/]+/[^/]+)(?:/(?P<verb>revision|tree|paths-info)/(?P<rest>.+))?"
)
FILE = re.compile(r"/(?P<datasets>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
WRITE = re.compile(
    r"(?P<make>/api/repos/create)|(?P<yaml>/api/validate-yaml)"
    r"|/api/models/(?P<repo>[^/]+/[^/]+)/(?P<verb>preupload|commit)/main"
    r"|/(?P<lfs>[^/]+/[^/]+)\.git/info/lfs/objects/batch|/lfs/(?P<put>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})"
)


class LoopbackHub(ThreadingHTTPServer):
    """The server.

    Attributes:
        requests: (method, path) of what was asked of the hub.
        strays: Hosts of what was meant for others.
        tokens: What callers identified themselves by.
        private: Repositories that were made private.
        writers: Tokens that may write; any may when empty.
        faults: `"500"` (every answer is an error) or `"cut"` (files break off half-way), by the repository's id.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = Path(root)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str]] = []
        self.strays: list[str] = []
        self.tokens: set[str | None] = set()
        self.private: set[str] = set()
        self.writers: set[str] = set()
        self.faults: dict[str, str] = {}

    def env(self, home: Path) -> dict[str, str]:
        """The environment of a process that knows this hub only."""
        return client_env(self.url, home)

    def run(self, code: str, home: Path, *args: str) -> subprocess.CompletedProcess:
        """Runs Python code in a process that knows this hub only; `args` are its `sys.argv[1:]`."""
        return run(code, self.env(home), *args)


def client_env(url: str, home: Path) -> dict[str, str]:
    """The environment of a process whose hub is at `url` and whose caches lie below `home`."""
    private = re.compile(r"HF_|HUGGING|TRANSFORMERS_|AUDIOCLF_|(.*_proxy$)", re.IGNORECASE)
    return {
        **{key: value for key, value in os.environ.items() if not private.match(key)},
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # `datasets` would tell a host of its own
        **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), url),
        "no_proxy": "127.0.0.1",
    }


def run(code: str, env: dict[str, str], *args: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], env=env, capture_output=True, text=True, timeout=120
    )


@contextmanager
def serve(root: Path) -> Iterator[LoopbackHub]:
    """A hub that serves `root` for the length of a `with`."""
    hub = LoopbackHub(root)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def _checked_card(content: str) -> dict:
    """What the hub says of a card: the rules of its model-index, as far as they matter here."""
    errors = []
    for model in yaml.safe_load(content.split("---")[1]).get("model-index", []):
        for result in model["results"]:
            data = result["dataset"]
            if not {"type", "name"} <= set(data) or not re.fullmatch(r"[a-z0-9/_.-]+", data["type"]):
                errors.append({"message": f"dataset {data}"})
            for metric in result["metrics"]:
                if not isinstance(metric["value"], (int, float)) or not metric["type"]:
                    errors.append({"message": f"metric {metric}"})
    return {"errors": errors, "warnings": []}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        if url.netloc:  # as a proxy is asked
            self.server.strays.append(url.netloc)
            return self._fail(403, "Forbidden")
        self.server.requests.append((self.command, unquote(url.path)))
        self.server.tokens.add(self.headers.get("Authorization"))
        if (write := WRITE.fullmatch(url.path)) and self.command in ("POST", "PUT"):
            self._write(write, body)
        elif match := FILE.fullmatch(unquote(url.path)):
            kind = "datasets" if match["datasets"] else "models"
            if self._known(kind, match["repo"], match["revision"]):
                self._send_file(kind, match["repo"], match["path"])
        elif match := API.fullmatch(url.path):
            revision, _, path = unquote(match["rest"] or "main").partition("/")
            if self._known(match["kind"], match["repo"], revision):
                self._answer(match["kind"], match["repo"], match["verb"], path, parse_qs(url.query), body)
        else:
            self._fail(404, "NotFound")

    do_HEAD = do_POST = do_PUT = do_GET

    def _write(self, asked: re.Match, body: bytes) -> None:
        """What the client sends to make a repository and to commit to it, large files by LFS."""
        if asked["yaml"]:
            return self._json(_checked_card(json.loads(body)["content"]))
        if self.server.writers and self.headers.get("Authorization") not in self.server.writers | {None}:
            return self._fail(403, "Forbidden", "You don't have the rights to do this")
        if asked["make"]:
            form = json.loads(body)
            repo = f"{form['organization']}/{form['name']}" if form.get("organization") else form["name"]
            (self.server.root / "models" / repo).mkdir(parents=True, exist_ok=True)
            if form.get("private") or form.get("visibility") == "private":
                self.server.private.add(repo)
            return self._json({"url": f"{self.server.url}/{repo}"})
        repo = asked["repo"] or asked["lfs"] or asked["put"]
        if self.server.faults.get(repo) == "500 on commit" and asked["verb"] == "commit":
            return self._fail(500, "InternalError", "the hub has a cold")
        folder = self.server.root / "models" / repo
        if asked["verb"] == "preupload":
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            rows = [{"path": f["path"], "uploadMode": modes[f["path"].endswith(".safetensors")]} for f in files]
            return self._json({"files": [{**row, "shouldIgnore": False} for row in rows]})
        if asked["lfs"]:
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.server.url}/lfs/{repo}/{entry['oid']}"}}}
                for entry in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if asked["put"]:
            assert hashlib.sha256(body).hexdigest() == asked["oid"]
            (folder / ".lfs").mkdir(exist_ok=True)
            (folder / ".lfs" / asked["oid"]).write_bytes(body)
            return self._json({})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                (folder / ".lfs" / value["oid"]).rename(folder / value["path"])
        self._json({"commitUrl": f"{self.server.url}/{repo}/commit/1", "commitOid": "1" * 40, "success": True})

    def do_CONNECT(self) -> None:
        self.server.strays.append(self.path)
        self._fail(403, "Forbidden")

    def log_message(self, *args: object) -> None:
        pass

    def _known(self, kind: str, repo: str, revision: str) -> bool:
        if self.server.faults.get(repo) == "500":
            self._fail(500, "InternalError", "the hub has a cold")
            return False
        if not (self.server.root / kind / repo).is_dir():
            self._fail(401, "RepoNotFound", "Repository not found")
            return False
        if revision not in ("main", _sha(kind, repo)):
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return False
        return True

    def _answer(self, kind: str, repo: str, verb: str | None, path: str, query: dict, body: bytes) -> None:
        folder = self.server.root / kind / repo
        if verb == "tree":
            if not (folder / path).is_dir():
                return self._fail(404, "EntryNotFound", "Entry not found")
            recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            found = (folder / path).rglob("*") if recursive else (folder / path).iterdir()
            return self._json([_entry(folder, entry) for entry in sorted(found)])
        if verb == "paths-info":
            form = json.loads(body) if "json" in self.headers["Content-Type"] else parse_qs(body.decode())
            return self._json([_entry(folder, folder / name) for name in form["paths"] if (folder / name).exists()])
        files = sorted(entry for entry in folder.rglob("*") if entry.is_file())
        self._json(
            {
                "id": repo,
                "sha": _sha(kind, repo),
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": file.relative_to(folder).as_posix()} for file in files],
            }
        )

    def _send_file(self, kind: str, repo: str, path: str) -> None:
        file, commit = self.server.root / kind / repo / path, _sha(kind, repo)
        if not file.is_file():
            return self._fail(404, "EntryNotFound", "Entry not found", commit)
        content, status = file.read_bytes(), 200
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content-Range"], status = f"bytes {first}-{last}/{len(content)}", 206
            content = content[first : last + 1]
        self._send(status, content, headers, cut=self.server.faults.get(repo) == "cut")

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str, message: str = "", commit: str | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message or code}
        self._send(status, message.encode(), headers | ({"X-Repo-Commit": commit} if commit else {}))

    def _send(self, status: int, content: bytes, headers: dict[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for key, value in ({"Content-Type": "application/octet-stream"} | headers).items():
            self.send_header(key, quote(value, safe=" /:;=\"'.,-_()"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut


def _sha(kind: str, repo: str) -> str:
    return hashlib.sha1(f"{kind}/{repo}".encode()).hexdigest()


def _entry(folder: Path, path: Path) -> dict[str, object]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
    oid = hashlib.sha1(path.read_bytes()).hexdigest()
    return {"type": "file", "oid": oid, "size": path.stat().st_size, "path": name}
