"""What a Hub keeps: repositories of commits, and files by their digest in a folder."""

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

LARGE = (".safetensors", ".parquet", ".png", ".npz", ".bin", ".pt", ".pth", ".arrow")
"""Files that go through LFS whatever their size, as a new repository's .gitattributes has it."""
_GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE).encode()


class Refused(Exception):
    """An answer other than success, with the header by which huggingface_hub tells the cases apart."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class File:
    """One version of a file."""

    sha256: str
    size: int
    blob_id: str
    """Git's digest of what git holds: the content, or the pointer of a large file."""
    large: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob_id


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    author: str
    date: str
    files: dict[str, File]


@dataclass
class Repo:
    kind: str
    name: str
    private: bool
    history: list[Commit] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, revision: str) -> Commit:
        """The commit of a branch, a tag, or a (shortened) digest."""
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        found = [commit for commit in self.history if commit.sha.startswith(sha)] if len(sha) >= 7 else []
        if not found:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found[0]

    def add(self, branch: str, files: dict[str, File], title: str, author: str) -> Commit:
        """Makes a commit visible, as a whole."""
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        state = [self.name, len(self.history), title, {path: file.sha256 for path, file in sorted(files.items())}]
        commit = Commit(hashlib.sha1(json.dumps(state).encode()).hexdigest(), title, author, date, files)
        self.history.append(commit)
        self.branches[branch] = commit.sha
        return commit

    def log(self, revision: str) -> list[Commit]:
        return self.history[self.history.index(self.commit(revision)) :: -1]


class Store:
    """Repositories by (kind, name), and objects as files named by their SHA-256.

    Args:
        folder: where the objects lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repos: dict[tuple[str, str], Repo] = {}

    def create(self, kind: str, name: str, private: bool, author: str) -> Repo:
        repo = self.repos[kind, name] = Repo(kind, name, private)
        repo.add("main", {".gitattributes": self.put(_GITATTRIBUTES)}, "initial commit", author)
        return repo

    def repo(self, kind: str, name: str, user: str | None, write: bool = False) -> Repo:
        """A repository that this user may see, or write to."""
        repo = self.repos.get((kind, name))
        owner = user == name.split("/")[0]
        if repo is None or (repo.private and not owner):
            raise Refused(404, "Repository not found", "RepoNotFound")
        if write and user is None:
            raise Refused(401, "Invalid username or password.")
        if write and not owner:
            raise Refused(403, f"Forbidden: you don't have write access to {name}")
        return repo

    def object(self, sha256: str) -> Path:
        return self.folder / sha256

    def put(self, content: bytes) -> File:
        """Keeps a small file."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.object(sha256).write_bytes(content)
        return File(sha256, len(content), git_digest(content), large=False)

    def put_object(self, sha256: str, content: bytes) -> None:
        """Keeps a large file, once it is wholly there and is what its digest says."""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise Refused(400, "The content does not match its SHA-256.")
        self.object(sha256).write_bytes(content)

    def large_file(self, sha256: str) -> File:
        if not self.object(sha256).is_file():
            raise Refused(400, f"LFS object {sha256} was never uploaded")
        size = self.object(sha256).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        return File(sha256, size, git_digest(pointer.encode()), large=True)


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
