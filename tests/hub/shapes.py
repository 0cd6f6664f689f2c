"""The hub's JSON: a model, the files of its tree, the answer to a list of paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from tests.hub.blobs import Blob
from tests.hub.repos import Commit, HubRepo


def model_json(
    repo: HubRepo, commit: Commit, *, expand: Iterable[str] | None = None, blobs: bool = False, brief: bool = False
) -> dict[str, Any]:
    """A model as `/api/models/{repo}` gives it; with `expand` only what was asked, `brief` as search lists it."""
    siblings: list[dict[str, Any]] = []
    for path, blob in commit.files.items() if not brief else ():
        sibling: dict[str, Any] = {"rfilename": path}
        if blobs:
            sibling |= {"size": blob.size, "blobId": blob.oid}
            if blob.lfs:
                sibling["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
        siblings.append(sibling)
    whole: dict[str, Any] = {
        "_id": hashlib.sha256(repo.id.encode()).hexdigest()[:24],
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.split("/")[0],
        "sha": commit.id,
        "lastModified": repo.last_modified,
        "createdAt": repo.created_at,
        "private": repo.private,
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": repo.downloads,
        "downloadsAllTime": None if repo.downloads is None else repo.downloads * 12,
        "likes": repo.likes,
        "tags": list(repo.tags),
        "pipeline_tag": repo.pipeline_tag,
        "siblings": siblings,
        **repo.extra,
    }
    whole = {name: value for name, value in whole.items() if value is not None}
    if expand is not None:
        return {name: whole[name] for name in ("_id", "id", *expand) if name in whole}
    if brief:
        del whole["sha"], whole["siblings"], whole["gated"], whole["disabled"]
    whole.pop("downloadsAllTime", None)
    return whole


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    """One file in a tree; note `oid` where siblings say `sha256`."""
    entry: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": len(blob.pointer)}
    return entry


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def tree_json(commit: Commit, folder: str, *, recursive: bool) -> list[dict[str, Any]] | None:
    """Files and directories below `folder`; None if there is no such folder."""
    prefix = f"{folder}/" if folder else ""
    inside = {path: blob for path, blob in commit.files.items() if path.startswith(prefix)}
    if folder and not inside:
        return None
    folders: dict[str, None] = {}
    files = []
    for path, blob in inside.items():
        below = path.removeprefix(prefix).split("/")
        for depth in range(1, len(below) if recursive else min(len(below), 2)):
            folders[prefix + "/".join(below[:depth])] = None
        if recursive or len(below) == 1:
            files.append(_entry(path, blob))
    return [*map(_folder, folders), *files]


def paths_json(commit: Commit, paths: Iterable[str]) -> list[dict[str, Any]]:
    """What is at these paths; unknown ones are left out."""
    found = []
    for path in paths:
        if path in commit.files:
            found.append(_entry(path, commit.files[path]))
        elif any(each.startswith(f"{path.rstrip('/')}/") for each in commit.files):
            found.append(_folder(path.rstrip("/")))
    return found
