"""What the double of the Hub says of commits, and how it makes them."""

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.hub.store import Commit, File, Refused, Store


def tree_entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Files and folders of a commit, as the tree and the paths are told."""
    last = {"lastCommit": commit_json(commit)}
    entries: dict[str, dict[str, Any]] = {}
    for path, file in commit.files.items():
        entries[path] = {"type": "file", "path": path, "size": file.size, "oid": file.blob_id, **last}
        if file.large:
            entries[path]["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
        for parent in list(Path(path).parents)[:-1]:
            oid = hashlib.sha1(str(parent).encode()).hexdigest()
            entries[str(parent)] = {"type": "directory", "path": str(parent), "size": 0, "oid": oid, **last}
    return entries


def commit_json(commit: Commit) -> dict[str, str]:
    return {"id": commit.sha, "title": commit.title, "date": commit.date}


def apply(files: dict[str, File], key: str, value: dict[str, Any], store: Store) -> None:
    path = value["path"]
    if path.startswith("/") or ".." in path.split("/"):
        raise Refused(400, f"invalid path {quote(path)}")
    if key == "file":
        try:
            files[path] = store.put(base64.b64decode(value["content"], validate=True))
        except binascii.Error as error:
            raise Refused(400, f"{path}: {error}") from error
    elif key == "lfsFile":
        files[path] = store.large_file(value["oid"])
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")
    elif key == "deletedFolder":
        for inside in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
            del files[inside]
    else:
        raise Refused(400, f"unknown operation {key}")
