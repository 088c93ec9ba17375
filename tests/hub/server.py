"""A Hugging Face Hub on the loopback: real sockets, what huggingface_hub 2.x sends and expects, and faults on demand.

Point a process at it by ``HF_ENDPOINT=server.url`` and ``HF_HUB_DISABLE_XET=1`` (with hf-xet installed the client would
upload to xet storage, whatever the server says; downloads use it only where the server offers it). Large files are
answered by a redirect to another origin, as on the Hub, which no token may reach.
"""

import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.commits import apply, commit_json, tree_entries
from tests.hub.store import LARGE, File, Refused, Repo, Store

SMALL_BYTES = 10_000_000
"""Larger files go through LFS whatever their name."""
MULTIPART_BYTES, PART_BYTES = 200_000, 90_000
"""Large files above this size are uploaded in parts (5 GB on the Hub)."""
PAGE = 4
"""Entries of a tree in one answer (1000 on the Hub)."""
_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
_REPO = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
_GIT = r"/(?P<kind>datasets/|spaces/)?(?P<name>[^/]+/[^/]+)"


@dataclass
class Fault:
    """Something that goes wrong with the next requests of a kind.

    ``how``: a status; ``cut``, the connection breaks in the middle of the request's body; ``lost``, the request is
    carried out and its answer never arrives; ``truncated`` and ``corrupted``, of the answer's body.
    """

    method: str
    path: str
    how: int | str
    times: int = 1


class HubServer(ThreadingHTTPServer):
    """The server; ``with HubServer(folder) as server`` runs it.

    Args:
        folder: for the files.
        tokens: who may do what: token to user name.
    """

    daemon_threads = True

    def __init__(self, folder: Path, tokens: dict[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage_url = f"http://localhost:{self.server_port}"
        self.tokens, self.store, self.lock = tokens, Store(folder), threading.RLock()
        self.parts: dict[tuple[str, int], bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.unknown: list[str] = []
        """Requests that this Hub has no answer to: a gap in it."""

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def fail(self, method: str, path: str, how: int | str, times: int = 1) -> None:
        """Arranges a :class:`Fault`; ``path`` is a regular expression."""
        self.faults.append(Fault(method, path, how, times))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no news."""

    def fault(self, method: str, path: str) -> int | str | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault.how
        return None


class Hangup(Exception):
    """Close the connection without an answer."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: HubServer
    wbufsize = -1  # one packet an answer
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Quiet; ``server.requests`` has them."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (Hangup, ConnectionError, TimeoutError):
            self.close_connection = True
            with_reset = b"\1\0\0\0\0\0\0\0"  # linger 0: the peer sees a broken connection, not an end
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, with_reset)

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self.fault = self.server.fault(self.command, self.path)
        self.server.requests.append(f"{self.command} {self.path}")
        try:
            self.body = self.read_body()
            if isinstance(self.fault, int):
                raise Refused(self.fault, "a fault that a test asked for")
            for method, pattern, respond in ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in method.split("|"):
                    with self.server.lock:
                        self.user = self.authenticate()
                        respond(self, **{key: unquote(value or "") for key, value in match.groupdict().items()})
                    return
            self.server.unknown.append(f"{self.command} {self.path}")
            raise Refused(404, f"no such route: {self.command} {self.path}")
        except Refused as refusal:
            headers = {"X-Error-Message": str(refusal), "X-Error-Code": refusal.code}
            if refusal.status in (429, 503):
                headers["Retry-After"] = "0"
            self.send_json({"error": str(refusal)}, refusal.status, {k: v for k, v in headers.items() if v})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def read_body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if self.fault == "cut":
            self.rfile.read(length // 2)
            raise Hangup
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        body = self.rfile.read(length)
        if len(body) < length:
            raise Hangup
        return body

    def authenticate(self) -> str | None:
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if not kind:
            return None
        if token not in self.server.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.server.tokens[token]

    def signed_in(self) -> str:
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        return self.user

    def send(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        if self.fault == "lost":
            raise Hangup
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body) if length is None else length)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault == "corrupted":
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
        if self.fault == "truncated":
            body, self.close_connection = body[: len(body) // 2], True
        self.wfile.write(body)

    def send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send_file(self, file: File, headers: dict[str, str]) -> None:
        content = self.server.store.object(file.sha256).read_bytes()
        headers = {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self.send(200, content, headers)
        first, last = int(asked[1]), min(int(asked[2] or file.size), file.size - 1)
        if first > last:
            return self.send(416, b"", {"Content-Range": f"bytes */{file.size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{file.size}"
        return self.send(206, content[first : last + 1], headers)

    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    def repo(self, kind: str, name: str, write: bool = False) -> Repo:
        return self.server.store.repo(_KINDS[kind.rstrip("/") or "models"], name, self.user, write)


ROUTES: list[tuple[str, str, Callable[..., None]]] = []


def route(method: str, pattern: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers what answers a request; named groups of the pattern arrive unquoted as arguments."""

    def register(respond: Callable[..., None]) -> Callable[..., None]:
        ROUTES.append((method, pattern, respond))
        return respond

    return register


# Accounts and repositories


@route("GET", "/api/whoami-v2")
def whoami(request: Handler) -> None:
    request.send_json({"type": "user", "name": request.signed_in(), "orgs": [], "auth": {"type": "access_token"}})


@route("GET", "/api/agent-harnesses")
def harnesses(request: Handler) -> None:
    """What the client asks once a day to describe itself."""
    request.send_json({"standardEnvVars": [], "harnesses": {}})


@route("POST", "/api/repos/create")
def create_repo(request: Handler) -> None:
    asked = request.json()
    owner = asked.get("organization") or request.signed_in()
    if owner != request.signed_in():
        raise Refused(403, f"You don't have the rights to create a repo under {owner}")
    kind, name = asked.get("type", "model"), f"{owner}/{asked['name']}"
    prefix = "" if kind == "model" else f"{kind}s/"
    there = (kind, name) in request.server.store.repos
    if not there:
        request.server.store.create(kind, name, asked.get("visibility") == "private", owner)
    answer = {"url": f"{request.server.url}/{prefix}{name}", "name": name}
    request.send_json(answer | {"error": "You already created this repo"} if there else answer, 409 if there else 200)


@route("DELETE", "/api/repos/delete")
def delete_repo(request: Handler) -> None:
    asked = request.json()
    kind, name = asked.get("type", "model"), f"{asked.get('organization') or request.signed_in()}/{asked['name']}"
    request.server.store.repo(kind, name, request.user, write=True)
    del request.server.store.repos[kind, name]
    request.send_json({})


@route("PUT", f"{_REPO}/settings")
def settings(request: Handler, kind: str, name: str) -> None:
    request.repo(kind, name, write=True).private = request.json()["visibility"] == "private"
    request.send_json({})


@route("GET", f"{_REPO}(/revision/(?P<revision>[^/]+))?")
def repo_info(request: Handler, kind: str, name: str, revision: str) -> None:
    repo = request.repo(kind, name)
    commit = repo.commit(revision or "main")
    siblings = [{"rfilename": path, "size": file.size, "blobId": file.blob_id} for path, file in commit.files.items()]
    info = {"id": name, "author": name.split("/")[0], "sha": commit.sha, "lastModified": commit.date}
    info |= {"createdAt": repo.history[0].date, "private": repo.private, "gated": False, "disabled": False}
    request.send_json({**info, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})


@route("GET", f"{_REPO}/refs")
def refs(request: Handler, kind: str, name: str) -> None:
    repo = request.repo(kind, name)
    named = {"heads": repo.branches, "tags": repo.tags}
    listed = {
        folder: [{"name": ref, "ref": f"refs/{folder}/{ref}", "targetCommit": sha} for ref, sha in of.items()]
        for folder, of in named.items()
    }
    request.send_json({"branches": listed["heads"], "tags": listed["tags"], "converts": [], "pullRequests": []})


@route("GET", f"{_REPO}/commits/(?P<revision>[^/]+)")
def commits(request: Handler, kind: str, name: str, revision: str) -> None:
    history = request.repo(kind, name).log(revision)
    listed = [commit_json(commit) | {"authors": [{"user": commit.author}], "message": ""} for commit in history]
    request.send_json(listed)


@route("POST|DELETE", f"{_REPO}/branch/(?P<branch>[^/]+)")
def branch(request: Handler, kind: str, name: str, branch: str) -> None:
    repo = request.repo(kind, name, write=True)
    _set_ref(request, repo, repo.branches, branch, request.json().get("startingPoint", "main"))


@route("POST", f"{_REPO}/tag/(?P<revision>[^/]+)")
def create_tag(request: Handler, kind: str, name: str, revision: str) -> None:
    repo = request.repo(kind, name, write=True)
    _set_ref(request, repo, repo.tags, request.json()["tag"], revision)


@route("DELETE", f"{_REPO}/tag/(?P<tag>[^/]+)")
def delete_tag(request: Handler, kind: str, name: str, tag: str) -> None:
    repo = request.repo(kind, name, write=True)
    _set_ref(request, repo, repo.tags, tag, "")


def _set_ref(request: Handler, repo: Repo, refs: dict[str, str], name: str, target: str) -> None:
    if request.command == "DELETE":
        if refs.pop(name, None) is None:
            raise Refused(404, f"no ref {name}", "RevisionNotFound")
    elif name in refs:
        raise Refused(409, f"Reference already exists: {name}")
    else:
        refs[name] = repo.commit(target).sha
    request.send_json({})


# Reading


@route("GET", f"{_REPO}/tree/(?P<revision>[^/]+)(/(?P<folder>.+))?")
def tree(request: Handler, kind: str, name: str, revision: str, folder: str) -> None:
    commit = request.repo(kind, name).commit(revision)
    start = f"{folder}/" if folder else ""
    entries = {path: entry for path, entry in tree_entries(commit).items() if path.startswith(start)}
    if folder and not entries:
        raise Refused(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    if request.query.get("recursive", "").lower() != "true":
        entries = {path: entry for path, entry in entries.items() if "/" not in path.removeprefix(start)}
    offset = int(request.query.get("cursor", 0))
    rest = urlsplit(request.path).path + f"?recursive={request.query.get('recursive', '')}&cursor={offset + PAGE}"
    link = {"Link": f'<{request.server.url}{rest}>; rel="next"'} if offset + PAGE < len(entries) else {}
    request.send_json([entries[path] for path in sorted(entries)][offset : offset + PAGE], 200, link)


@route("POST", f"{_REPO}/paths-info/(?P<revision>[^/]+)")
def paths_info(request: Handler, kind: str, name: str, revision: str) -> None:
    entries = tree_entries(request.repo(kind, name).commit(revision))
    asked = parse_qs(request.body.decode())["paths"]
    request.send_json([entries[path.strip("/")] for path in asked if path.strip("/") in entries])


@route("GET|HEAD", f"{_GIT}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
def resolve(request: Handler, kind: str, name: str, revision: str, path: str) -> None:
    commit = request.repo(kind, name).commit(revision)
    headers = {"X-Repo-Commit": commit.sha}
    file = commit.files.get(path)
    if file is None:
        headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
        return request.send(404, b"Entry not found", headers)
    if not file.large:
        return request.send_file(file, headers)
    headers |= {"Location": f"{request.server.storage_url}/storage/{file.sha256}"}
    headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"'}
    return request.send(302, b"", headers)


@route("GET|HEAD", "/storage/(?P<sha256>[0-9a-f]{64})")
def storage(request: Handler, sha256: str) -> None:
    if request.user is not None or not request.headers["Host"].startswith("localhost"):
        raise Refused(400, "a token was sent to the storage")
    request.send_file(request.server.store.large_file(sha256), {})


# Writing


@route("POST", "/api/validate-yaml")
def validate_yaml(request: Handler) -> None:
    found = re.match(r"---\n(.*?)\n---\n", request.json()["content"], re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        return request.send_json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
    return request.send_json({"errors": [], "warnings": warnings})


@route("POST", f"{_REPO}/preupload/(?P<revision>[^/]+)")
def preupload(request: Handler, kind: str, name: str, revision: str) -> None:
    present = request.repo(kind, name, write=True).commit(revision).files
    answers = []
    for file in request.json()["files"]:
        large = file["path"].endswith(LARGE) or file["size"] > SMALL_BYTES
        there = present.get(file["path"])
        known = {"oid": there.etag} if there else {}
        mode = "lfs" if large else "regular"
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
    request.send_json({"files": answers})


@route("POST", rf"{_GIT}\.git/info/lfs/objects/batch")
def lfs_batch(request: Handler, kind: str, name: str) -> None:
    request.repo(kind, name, write=True)
    server, verify = request.server, f"{request.server.url}/{kind}{name}.git/info/lfs/verify"
    answers = []
    for item in request.json()["objects"]:
        sha256, size = item["oid"], item["size"]
        answer = {"oid": sha256, "size": size}
        url = f"{server.url}/upload/{sha256}"
        if not server.store.object(sha256).is_file():
            upload: dict[str, Any] = {"href": url}
            if size > MULTIPART_BYTES:
                numbers = range(1, -(-size // PART_BYTES) + 1)
                upload = {"href": f"{url}/complete", "header": {f"{n:05d}": f"{url}/{n}" for n in numbers}}
                upload["header"]["chunk_size"] = str(PART_BYTES)
            answer["actions"] = {"upload": upload, "verify": {"href": verify}}
        answers.append(answer)
    request.send_json({"transfer": "multipart", "objects": answers})


@route("PUT", "/upload/(?P<sha256>[0-9a-f]{64})")
def upload(request: Handler, sha256: str) -> None:
    request.server.store.put_object(sha256, request.body)
    request.send(200, b"", {})


@route("PUT", "/upload/(?P<sha256>[0-9a-f]{64})/(?P<number>[0-9]+)")
def upload_part(request: Handler, sha256: str, number: str) -> None:
    request.server.parts[sha256, int(number)] = request.body
    request.send(200, b"", {"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})


@route("POST", "/upload/(?P<sha256>[0-9a-f]{64})/complete")
def complete(request: Handler, sha256: str) -> None:
    parts = [request.server.parts.get((sha256, part["partNumber"]), b"") for part in request.json()["parts"]]
    if [f'"{hashlib.md5(part).hexdigest()}"' for part in parts] != [p["etag"] for p in request.json()["parts"]]:
        raise Refused(400, "parts are missing or have changed")
    request.server.store.put_object(sha256, b"".join(parts))
    request.send_json({})


@route("POST", rf"{_GIT}\.git/info/lfs/verify")
def verify(request: Handler, kind: str, name: str) -> None:
    request.repo(kind, name, write=True)
    file = request.server.store.large_file(request.json()["oid"])
    if file.size != request.json()["size"]:
        raise Refused(400, "the size differs")
    request.send_json({})


@route("POST", f"{_REPO}/commit/(?P<revision>[^/]+)")
def commit(request: Handler, kind: str, name: str, revision: str) -> None:
    repo, store = request.repo(kind, name, write=True), request.server.store
    if revision not in repo.branches:
        raise Refused(404, f"no branch {revision}", "RevisionNotFound")
    header, *operations = [json.loads(line) for line in request.body.splitlines()]
    if header["key"] != "header":
        raise Refused(400, "the first line is no header")
    if header["value"].get("parentCommit", repo.branches[revision]) != repo.branches[revision]:
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repo.commit(revision).files)
    for operation in operations:
        apply(files, operation["key"], operation["value"], store)
    made = repo.add(revision, files, header["value"]["summary"], request.signed_in())
    prefix = "" if kind == "models" else f"{kind}/"
    url = f"{request.server.url}/{prefix}{name}/commit/{made.sha}"
    request.send_json({"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""})
