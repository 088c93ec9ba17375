"""The Hub of these tests: what huggingface_hub asks of it, and its faults."""

import hashlib
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

SMALL, LARGE = b'{"a": 1}', bytes(range(256)) * 400
HUGE = b"".join(hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(10_000))


def test_repositories_and_their_owners(api, online):
    url = api.create_repo("walk")
    assert (url.repo_id, url.repo_type) == ("me/walk", "model")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("me/walk")
    api.create_repo("me/walk", exist_ok=True)
    api.create_repo("me/walk", repo_type="dataset", private=True)
    assert api.repo_info("me/walk", repo_type="dataset").private
    assert not api.repo_info("me/walk").private
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("you/walk")
    assert api.whoami()["name"] == "me"
    assert HfApi(endpoint=online.url, token="hf_you").whoami()["name"] == "you"
    for token in ("hf_you", False):
        with pytest.raises(RepositoryNotFoundError):
            api.repo_info("me/walk", repo_type="dataset", token=token)
        with pytest.raises(HfHubHTTPError, match=r"40[13]"):
            api.upload_file(path_or_fileobj=SMALL, path_in_repo="a", repo_id="me/walk", token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid user token") as error:
        api.whoami(token="hf_nobody")
    assert error.value.response.status_code == 401
    api.update_repo_settings("me/walk", repo_type="dataset", private=False)
    assert not api.repo_info("me/walk", repo_type="dataset", token=False).private
    api.delete_repo("me/walk")
    with pytest.raises(RepositoryNotFoundError):
        api.repo_info("me/walk")


def test_commits_trees_and_revisions(api, tmp_path):
    api.create_repo("me/walk")
    files = {"config.json": SMALL, "denoiser/w.safetensors": LARGE, "denoiser/huge.safetensors": HUGE, "a/b/c.txt": b""}
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    first = api.create_commit("me/walk", operations, commit_message="first")
    second = api.create_commit(
        "me/walk",
        [CommitOperationAdd("config.json", b"{}"), CommitOperationDelete("denoiser/w.safetensors")],
        commit_message="second",
    )
    assert sorted(api.list_repo_files("me/walk", revision=first.oid)) == sorted([".gitattributes", *files])
    assert sorted(api.list_repo_files("me/walk")) == sorted({".gitattributes", *files} - {"denoiser/w.safetensors"})
    assert {entry.path for entry in api.list_repo_tree("me/walk", "denoiser")} == {"denoiser/huge.safetensors"}
    assert {entry.path for entry in api.list_repo_tree("me/walk")} == {".gitattributes", "config.json", "denoiser", "a"}
    [info] = api.get_paths_info("me/walk", ["denoiser/huge.safetensors", "absent"])
    assert info.lfs.sha256 == hashlib.sha256(HUGE).hexdigest()
    assert [commit.title for commit in api.list_repo_commits("me/walk")] == ["second", "first", "initial commit"]
    api.create_tag("me/walk", tag="v1", revision=first.oid)
    api.create_branch("me/walk", branch="try/it")
    api.upload_file(path_or_fileobj=b"[]", path_in_repo="config.json", repo_id="me/walk", revision="try/it")
    refs = api.list_repo_refs("me/walk")
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"v1": first.oid}
    assert {ref.name for ref in refs.branches} == {"main", "try/it"}
    for revision, content in {"v1": SMALL, first.oid[:9]: SMALL, "main": b"{}", "try/it": b"[]"}.items():
        path = hf_hub_download("me/walk", "config.json", revision=revision, endpoint=api.endpoint)
        assert Path(path).read_bytes() == content
    folder = snapshot_download("me/walk", revision="v1", endpoint=api.endpoint, local_dir=tmp_path / "copy")
    assert {path: (tmp_path / "copy" / path).read_bytes() for path in files} == files
    assert folder == str(tmp_path / "copy")
    api.delete_tag("me/walk", tag="v1")
    api.delete_branch("me/walk", branch="try/it")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info("me/walk", revision="v1")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("me/walk", "absent", endpoint=api.endpoint)
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("me/walk", [CommitOperationAdd("d", b"d")], commit_message="late", parent_commit=first.oid)
    assert api.repo_info("me/walk").sha == second.oid
    # What is there already is neither sent nor committed again.
    again = api.upload_file(path_or_fileobj=HUGE, path_in_repo="denoiser/huge.safetensors", repo_id="me/walk")
    assert again.oid == second.oid


def test_ranges_and_redirects(api, online):
    api.create_repo("me/walk", private=True)
    api.upload_file(path_or_fileobj=LARGE, path_in_repo="w.safetensors", repo_id="me/walk")
    url, head = f"{online.url}/me/walk/resolve/main/w.safetensors", {"Authorization": "Bearer hf_me"}
    answer = httpx2.head(url, headers=head)
    assert answer.status_code == 302
    assert answer.headers["X-Linked-ETag"] == f'"{hashlib.sha256(LARGE).hexdigest()}"'
    assert answer.headers["X-Linked-Size"] == str(len(LARGE))
    assert answer.headers["X-Repo-Commit"] == api.repo_info("me/walk").sha
    part = httpx2.get(answer.headers["Location"], headers={"Range": "bytes=100-299"})
    assert (part.status_code, part.content) == (206, LARGE[100:300])
    assert part.headers["Content-Range"] == f"bytes 100-299/{len(LARGE)}"
    assert httpx2.get(answer.headers["Location"], headers={"Range": f"bytes={len(LARGE)}-"}).status_code == 416
    # The storage is another origin: no token goes there.
    assert httpx2.get(answer.headers["Location"], headers=head).status_code == 400
    assert httpx2.head(url).status_code == 404


@pytest.mark.parametrize("how", [429, 503, "cut", "lost"])
@pytest.mark.parametrize("content", [LARGE, HUGE], ids=["basic", "multipart"])
def test_uploads_are_tried_again(api, online, how, content):
    api.create_repo("me/walk")
    before = api.repo_info("me/walk").sha
    online.fail("PUT", "/upload/", how)
    online.fail("POST", "/preupload/" if how == 429 else "/lfs/objects/batch", how)
    made = api.upload_file(path_or_fileobj=content, path_in_repo="w.safetensors", repo_id="me/walk")
    assert sum(request.startswith("PUT /upload/") for request in online.requests) == (2 if content is LARGE else 5)
    assert [commit.commit_id for commit in api.list_repo_commits("me/walk")] == [made.oid, before]
    assert Path(hf_hub_download("me/walk", "w.safetensors", endpoint=api.endpoint)).read_bytes() == content


def test_no_half_commit(api, online, tmp_path):
    api.create_repo("me/walk")
    before = api.repo_info("me/walk").sha
    for name, content in {"a.json": SMALL, "b.safetensors": LARGE}.items():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    online.fail("POST", "/commit/", "cut")
    with pytest.raises((httpx2.NetworkError, httpx2.RemoteProtocolError)):
        api.upload_folder(folder_path=tmp_path / "out", repo_id="me/walk")
    assert api.repo_info("me/walk").sha == before
    assert api.list_repo_files("me/walk") == [".gitattributes"]
    api.upload_folder(folder_path=tmp_path / "out", repo_id="me/walk")
    assert sorted(api.list_repo_files("me/walk")) == [".gitattributes", "a.json", "b.safetensors"]
    assert sum(request.startswith("PUT") for request in online.requests) == 1


def test_downloads_go_on_and_are_tried_again(api, online):
    api.create_repo("me/walk")
    api.upload_file(path_or_fileobj=HUGE, path_in_repo="w.safetensors", repo_id="me/walk")
    online.fail("HEAD", "/resolve/", 503)
    online.fail("GET", "/storage/", "truncated")
    assert Path(hf_hub_download("me/walk", "w.safetensors", endpoint=api.endpoint)).read_bytes() == HUGE
    online.fail("HEAD", "/resolve/", 503, times=99)
    with pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("me/walk", "other.safetensors", endpoint=api.endpoint, etag_timeout=1)
