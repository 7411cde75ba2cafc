"""A stand-in of the Hugging Face Hub: the few endpoints that the real client calls to make, fill and read repositories.

Large files go through Git LFS, small ones into the commit itself, as on the Hub; Xet is off. Every request is kept.
`python -m tests.hub_standin` serves one and prints the variables with which `ifguide push` and `pull` find it.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_standin"
LICENCES = ("apache-2.0", "cc-by-4.0", "mit", "odc-by", "other")
_LARGE = (".parquet", ".safetensors", ".ifguide")


@dataclass
class Repository:
    """Its branches, each the files by name, and its commits' messages."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[str] = field(default_factory=list)

    def sha(self, revision: str) -> str:
        """The commit that a branch is at."""
        named = sorted((name, hashlib.sha1(content).hexdigest()) for name, content in self.branches[revision].items())
        return hashlib.sha1(json.dumps(named).encode()).hexdigest()

    def files(self, revision: str) -> dict[str, bytes] | None:
        """Of a branch or a commit; None when there is no such one."""
        found = next((name for name in self.branches if revision in (name, self.sha(name))), None)
        return None if found is None else self.branches[found]


@dataclass
class StandIn:
    """What the server holds; repositories by `datasets/ORG/NAME` or `models/ORG/NAME`."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve_hub():
    """A running stand-in."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return self._answer(b"".join(parts))
        return self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    do_PUT = do_POST

    def _answer(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        for pattern, needs_token, method in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.command.replace('HEAD', 'GET')} {path}"):
                if needs_token and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    return self._send(401, {"error": "Invalid username or password."})
                return getattr(self, method)(body, **found.groupdict())
        return self._send(404, {"error": f"no route for {path}"})

    def _send(self, status: int, value, headers: dict | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": len(content), **(headers or {})}.items():
            self.send_header(name, str(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _find(self, kind: str, repo: str) -> Repository | None:
        found = self.hub.repositories.get(f"{kind}/{repo}")
        if found is None or (found.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        if asked["organization"] == "closed":
            return self._send(403, {"error": "You don't have the rights to create a dataset under this namespace"})
        key = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
        url = f"{self.hub.endpoint}/{key.removeprefix('models/')}"
        if key in self.hub.repositories:
            return self._send(409, {"error": "You already created this repo", "url": url})
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[key] = Repository(private=bool(private))
        return self._send(200, {"url": url, "name": key.partition("/")[2], "id": "1"})

    def branch(self, body: bytes, kind: str, repo: str, name: str) -> None:
        if found := self._find(kind, repo):
            there = name in found.branches
            found.branches.setdefault(name, dict(found.branches["main"]))
            self._send(*((409, {"error": "Reference already exists"}) if there else (200, {})))

    def info(self, body: bytes, kind: str, repo: str, revision: str = "main") -> None:
        if found := self._find(kind, repo):
            files = found.files(revision)
            if files is None:
                return self._send(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": name} for name in sorted(files)]
            facts = {"id": repo, "sha": found.sha("main"), "private": found.private, "siblings": siblings, "tags": []}
            return self._send(200, facts | {"downloads": 0, "likes": 0})
        return None

    def tree(self, body: bytes, kind: str, repo: str, revision: str, folder: str | None = None) -> None:
        if found := self._find(kind, repo):
            start, whole = f"{folder}/" if folder else "", "recursive=true" in self.path.lower()
            rows = {}
            for name, content in (found.files(revision) or {}).items():
                place, inside = start + name.removeprefix(start).split("/")[0], name.startswith(start)
                if inside and place != name:
                    rows[place] = {"type": "directory", "path": place, "size": 0, "oid": "0" * 40}
                if inside and (whole or place == name):
                    oid = hashlib.sha1(content).hexdigest()
                    rows[name] = {"type": "file", "path": name, "size": len(content), "oid": oid}
            self._send(200, list(rows.values()))

    def check_card(self, body: bytes) -> None:
        front = json.loads(body)["content"].split("---\n")[1]
        licence = yaml.safe_load(front).get("license", "other")
        errors = [] if licence in LICENCES else [{"message": f'"license" must be one of {", ".join(LICENCES)}'}]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        if self._find(kind, repo):
            rows = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            self._send(200, {"files": rows})

    def lfs_batch(self, body: bytes, repo: str, kind: str | None = "") -> None:
        if self._find((kind or "models").rstrip("/"), repo):
            rows = [
                {**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/objects/{one['oid']}", "header": {}}}}
                for one in json.loads(body)["objects"]
            ]
            self._send(200, {"transfer": "basic", "objects": rows})

    def store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._send(200, b"")

    def commit(self, body: bytes, kind: str, repo: str, revision: str) -> None:
        if found := self._find(kind, repo):
            files = dict(found.branches[revision])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    found.commits.append(value["summary"])
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                else:
                    del files[value["path"]]
            found.branches[revision] = files
            sha = found.sha(revision)
            url = f"{self.hub.endpoint}/{kind}/{repo}/commit/{sha}"
            self._send(200, {"commitUrl": url, "commitOid": sha, "success": True})

    def resolve(self, body: bytes, repo: str, revision: str, name: str, kind: str | None = "") -> None:
        if found := self._find((kind or "models").rstrip("/"), repo):
            files = found.files(revision)
            if files is None:
                return self._send(404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"})
            commit = {"X-Repo-Commit": next(found.sha(b) for b in found.branches if found.branches[b] is files)}
            if name not in files:
                return self._send(404, {"error": "no file"}, {"X-Error-Code": "EntryNotFound", **commit})
            etag = hashlib.sha256(files[name]).hexdigest()
            return self._send(200, files[name], {"ETag": f'"{etag}"', "Accept-Ranges": "none", **commit})
        return None


_KIND, _REPO = "(?P<kind>models|datasets)", "(?P<repo>[^/]+/[^/]+)"
_ROUTES = (
    ("POST /api/repos/create", True, "create"),
    ("POST /api/validate-yaml", False, "check_card"),
    (f"POST /api/{_KIND}/{_REPO}/branch/(?P<name>.+)", True, "branch"),
    (f"POST /api/{_KIND}/{_REPO}/preupload/(?P<revision>.+)", True, "preupload"),
    (f"POST /api/{_KIND}/{_REPO}/commit/(?P<revision>.+)", True, "commit"),
    (f"GET /api/{_KIND}/{_REPO}", False, "info"),
    (f"GET /api/{_KIND}/{_REPO}/revision/(?P<revision>.+)", False, "info"),
    (f"GET /api/{_KIND}/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?", False, "tree"),
    (f"POST /(?P<kind>datasets/)?{_REPO}\\.git/info/lfs/objects/batch", True, "lfs_batch"),
    ("PUT /objects/(?P<oid>[0-9a-f]{64})", False, "store"),
    (f"GET /(?P<kind>datasets/)?{_REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", False, "resolve"),
)
"""Method and path, whether a token is asked for, and what answers."""


if __name__ == "__main__":
    with serve_hub() as running:
        print(f"HF_ENDPOINT={running.endpoint} HF_TOKEN={TOKEN} HF_HUB_DISABLE_XET=1", flush=True)
        threading.Event().wait()
