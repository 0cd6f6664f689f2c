"""The hub, asked by the real `huggingface_hub`: what it answers, what lands on disk, what each refusal becomes."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gguf
import httpx
import pytest
from huggingface_hub import HfApi, errors, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download

from tests.hub import GOOD_TOKEN, MIB, STRANGER_TOKEN, Generated, HubRepo, LoopbackHub
from tests.hub.content import HOSTILE_NAMES, gguf_of_size, gguf_shards, minilm_files, standard_repos

TINY = "acme/Tiny-GGUF"
WEIGHTS = "Tiny-Q4_K_M.gguf"


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    """Without a token, also when the machine has one."""
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def fetch(hub: LoopbackHub, tmp_path: Path) -> Callable[..., Path]:
    """`hf_hub_download` from the hub into an empty cache."""

    def run(repo: str, path: str, **more: Any) -> Path:
        more = {"token": False, "endpoint": hub.url, "cache_dir": tmp_path / "cache", **more}
        return Path(hf_hub_download(repo, path, **more))

    return run


# -- files


def test_an_lfs_file_is_redirected_to_the_cdn_and_lands_whole_in_the_cache(hub, fetch, tmp_path):
    blob = hub.repo(TINY)[WEIGHTS]
    path = fetch(TINY, WEIGHTS)
    cache = tmp_path / "cache" / "models--acme--Tiny-GGUF"
    assert path == cache / "snapshots" / hub.repo(TINY).sha / WEIGHTS
    assert path.resolve() == cache / "blobs" / blob.sha256
    assert hashlib.sha256(path.read_bytes()).hexdigest() == blob.sha256
    assert (cache / "refs" / "main").read_text() == hub.repo(TINY).sha
    assert [(each.server, each.method, each.status) for each in hub.requests(f"{TINY}/*")] == [
        ("hub", "HEAD", 302),
        ("cdn", "GET", 200),
    ]
    assert hub.served_bytes(blob.sha256) == hub.served_bytes(f"{TINY}/*") == blob.size


def test_a_small_file_comes_from_the_hub_by_way_of_the_resolve_cache(hub, fetch):
    path = fetch(TINY, "README.md")
    content = hub.repo(TINY)["README.md"].read()
    assert path.read_bytes() == content
    # The name in the cache is git's id of the content.
    assert path.resolve().name == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    assert [(each.server, each.method, each.status) for each in hub.requests(f"{TINY}/*")] == [
        ("hub", "HEAD", 307),
        ("hub", "HEAD", 200),
        ("hub", "GET", 200),
    ]


def test_a_small_file_can_come_without_the_detour(tmp_path):
    with LoopbackHub(standard_repos(), resolve_cache=False) as hub:
        path = hf_hub_download(TINY, "README.md", endpoint=hub.url, token=False, cache_dir=tmp_path)
        assert Path(path).read_bytes() == hub.repo(TINY)["README.md"].read()
        assert [each.status for each in hub.requests(f"{TINY}/*")] == [200, 200]


def test_a_cached_file_costs_one_head_by_branch_and_nothing_by_commit(hub, fetch):
    fetch(TINY, WEIGHTS)
    seen = len(hub.log)
    fetch(TINY, WEIGHTS)
    assert [each.method for each in hub.log[seen:]] == ["HEAD"]
    fetch(TINY, WEIGHTS, revision=hub.repo(TINY).sha)
    assert len(hub.log) == seen + 1


@pytest.mark.parametrize("path", [WEIGHTS, "README.md"])
def test_file_metadata_says_commit_etag_size_and_location(hub, path):
    blob = hub.repo(TINY)[path]
    found = get_hf_file_metadata(hf_hub_url(TINY, path, endpoint=hub.url), token=False, endpoint=hub.url)
    assert (found.commit_hash, found.etag, found.size) == (hub.repo(TINY).sha, blob.etag, blob.size)
    assert found.location.startswith(hub.cdn_url if blob.lfs else hub.url)
    assert len(blob.etag) == (64 if blob.lfs else 40)
    assert found.xet_file_data is None


def test_a_snapshot_brings_every_file_and_the_second_one_asks_only_for_the_commit(hub, tmp_path):
    repo = hub.repo("acme/Tiny-Safetensors")
    run = lambda: Path(snapshot_download(repo.id, endpoint=hub.url, token=False, cache_dir=tmp_path))  # noqa: E731
    folder = run()
    assert {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()} == {*repo.main.files}
    assert all((folder / path).read_bytes() == blob.read() for path, blob in repo.main.files.items())
    seen = len(hub.log)
    run()
    assert [each.path for each in hub.log[seen:]] == [f"/api/models/{repo.id}/revision/main"]


def test_the_real_sentence_embedding_model_is_served_from_its_package(hub, tmp_path):
    repo = hub.add(HubRepo("sentence-transformers/all-MiniLM-L6-v2", minilm_files()))
    assert repo["model.safetensors"].size > 80 * MIB
    assert repo["model.safetensors"].lfs
    folder = Path(snapshot_download(repo.id, endpoint=hub.url, token=False, cache_dir=tmp_path))
    with (folder / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == repo["model.safetensors"].sha256
        file.seek(0)
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert "embeddings.word_embeddings.weight" in header
    assert (folder / "1_Pooling" / "config.json").is_file()


def test_no_request_to_the_cdn_carries_a_credential(hub, fetch):
    fetch("acme/Gated-GGUF", "gated.Q4_K_M.gguf", token=GOOD_TOKEN)
    assert all(each.authorization == f"Bearer {GOOD_TOKEN}" for each in hub.requests("acme/Gated-GGUF/*", server="hub"))
    served = hub.requests(server="cdn")
    assert served
    assert all(each.authorization is None for each in served)
    assert urlsplit(hub.url).port != urlsplit(hub.cdn_url).port


@pytest.mark.parametrize(
    ("asked", "status", "said", "part"),
    [
        ("bytes=0-99", 206, "bytes 0-99/{size}", slice(0, 100)),
        ("bytes=100-", 206, "bytes 100-{last}/{size}", slice(100, None)),
        ("bytes=100-99999999", 206, "bytes 100-{last}/{size}", slice(100, None)),
        ("bytes=-7", 206, "bytes {tail}-{last}/{size}", slice(-7, None)),
        ("bytes={size}-", 416, "bytes */{size}", None),
        ("bytes=0-1,5-9", 200, None, slice(None)),
        ("lines=1-2", 200, None, slice(None)),
    ],
)
def test_the_cdn_serves_ranges(hub, asked, status, said, part):
    blob = hub.repo(TINY)[WEIGHTS]
    names = {"size": blob.size, "last": blob.size - 1, "tail": blob.size - 7}
    location = httpx.head(hub.resolve_url(TINY, WEIGHTS)).headers["location"]
    answer = httpx.get(location, headers={"range": asked.format(**names)})
    assert answer.status_code == status
    assert answer.headers.get("content-range") == (said and said.format(**names))
    assert answer.headers["accept-ranges"] == "bytes"
    if part is not None:
        assert answer.content == blob.read()[part]
        assert hub.served_bytes(blob.sha256) == len(answer.content)


def test_a_signed_url_ends_by_time_by_order_and_with_its_signature(hub):
    location = httpx.head(hub.resolve_url(TINY, WEIGHTS)).headers["location"]
    assert httpx.get(location).status_code == 200
    assert httpx.get(location.replace("Signature=", "Signature=0")).status_code == 403
    hub.expire_signatures()
    answer = httpx.get(location)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/xml")
    assert httpx.get(httpx.head(hub.resolve_url(TINY, WEIGHTS)).headers["location"]).status_code == 200
    with LoopbackHub(standard_repos(), signature_ttl_s=0) as brief:
        assert httpx.get(httpx.head(brief.resolve_url(TINY, WEIGHTS)).headers["location"]).status_code == 403


def test_content_is_the_same_wherever_reading_starts():
    made = HubRepo("a/b", {"x.bin": Generated(3 * MIB + 5, seed=4, head=b"head" * 10)})["x.bin"]
    whole = made.read()
    assert len(whole) == made.size
    assert whole.startswith(b"head" * 10)
    assert hashlib.sha256(whole).hexdigest() == made.sha256
    assert whole[:MIB] != whole[MIB : 2 * MIB]
    for start, stop in [(0, 1), (38, 50), (MIB - 3, MIB + 3), (MIB + 4, MIB + 9), (2 * MIB + 7, made.size)]:
        assert b"".join(made.pieces(start, stop)) == whole[start:stop]


@pytest.mark.parametrize("repo", ["acme/Tiny-GGUF", "acme/Sharded-GGUF", "acme/Vision-GGUF"])
def test_gguf_files_are_valid(repo, tmp_path):
    found = next(each for each in standard_repos() if each.id == repo)
    for number, (path, blob) in enumerate(found.main.files.items()):
        if path.endswith(".gguf"):
            file = tmp_path / f"{number}.gguf"
            file.write_bytes(blob.read())
            reader = gguf.GGUFReader(file)
            assert reader.fields["general.architecture"].contents() == ("clip" if "mmproj" in path else "llama")
            last = reader.tensors[-1]
            assert last.data_offset + last.n_bytes <= blob.size


def test_shards_count_themselves_and_sizes_are_exact(tmp_path):
    shards = gguf_shards("Big-Q4_K_M", 2, 1_000_003)
    assert [*shards] == ["Big-Q4_K_M-00001-of-00002.gguf", "Big-Q4_K_M-00002-of-00002.gguf"]
    for number, shard in enumerate(shards.values()):
        file = tmp_path / "shard.gguf"
        file.write_bytes(HubRepo("a/b", {"s.gguf": shard})["s.gguf"].read())
        assert file.stat().st_size == 1_000_003
        fields = gguf.GGUFReader(file).fields
        assert [fields[f"split.{name}"].contents() for name in ("no", "count", "tensors.count")] == [number, 2, 2]
    with pytest.raises(ValueError, match="needs more than"):
        gguf_of_size(100)


# -- metadata


def test_model_info_has_files_with_sizes_and_hashes(hub, api):
    info = api.model_info(TINY, files_metadata=True)
    repo = hub.repo(TINY)
    assert (info.id, info.sha, info.downloads, info.likes) == (TINY, repo.sha, 1_234_567, 345)
    assert (info.gated, info.private, info.disabled, info.pipeline_tag) == (False, False, False, "text-generation")
    assert info.last_modified is not None
    for sibling in info.siblings or ():
        blob = repo[sibling.rfilename]
        assert (sibling.size, sibling.blob_id) == (blob.size, blob.oid)
        assert (sibling.lfs.sha256 if sibling.lfs else None) == (blob.sha256 if blob.lfs else None)
    plain = api.model_info(TINY)
    assert [each.rfilename for each in plain.siblings or ()] == [*repo.main.files]
    assert all(each.size is None for each in plain.siblings or ())


def test_expand_gives_only_what_was_asked_and_keeps_unknown_apart_from_zero(hub, api):
    url = f"{hub.url}/api/models/{TINY}"
    for name in ("expand", "expand[]"):
        said = httpx.get(url, params=[(name, "downloads"), (name, "likes"), (name, "gated")]).json()
        assert {*said} == {"_id", "id", "downloads", "likes", "gated"}
    assert api.model_info("acme/Empty", expand=["downloads"]).downloads == 0
    assert api.model_info("acme/No-Weights", expand=["downloads"]).downloads is None
    assert api.model_info(TINY, expand=["downloadsAllTime"]).downloads_all_time == 12 * 1_234_567


def test_revisions_by_tag_commit_head_and_quoted_branch(hub, api, fetch):
    repo = hub.repo(TINY)
    old = repo.sha
    repo.commit({"new.gguf": b"GGUF new"}, branch="refs/pr/1")
    assert api.model_info(TINY, revision="refs/pr/1").sha == repo.branches["refs/pr/1"].id
    assert fetch(TINY, "new.gguf", revision="refs/pr/1").read_bytes() == b"GGUF new"
    assert fetch(TINY, WEIGHTS, revision="v1").read_bytes() == repo.branches["v1"].files[WEIGHTS].read()
    new = repo.change(WEIGHTS, b"GGUF changed")
    assert api.model_info(TINY).sha == api.model_info(TINY, revision="HEAD").sha == new != old
    assert api.model_info(TINY, revision=old).sha == old
    assert fetch(TINY, WEIGHTS).read_bytes() == b"GGUF changed"
    assert httpx.get(f"{hub.url}/{TINY}/resolve/refs/pr/1/new.gguf", follow_redirects=True).content == b"GGUF new"
    refs = api.list_repo_refs(TINY)
    assert {each.name for each in refs.branches} == {"main", "v1", "refs/pr/1"}


def test_resolve_revision_pins_a_commit(hub, api, tmp_path):
    found = api.resolve_revision(TINY, revision="v1", cache_dir=tmp_path)
    commit = hub.repo(TINY).branches["v1"].id
    assert found.resolved == commit
    assert (tmp_path / "models--acme--Tiny-GGUF" / "refs" / "v1").read_text() == commit


def test_files_that_are_moved_or_removed_stay_at_the_old_commit(hub, api, fetch):
    repo = hub.repo("acme/One-GGUF")
    old = repo.sha
    repo.move("one.Q8_0.gguf", "renamed.gguf")
    repo.remove("README.md")
    assert api.list_repo_files(repo.id) == ["renamed.gguf"]
    assert fetch(repo.id, "one.Q8_0.gguf", revision=old).is_file()
    with pytest.raises(errors.RemoteEntryNotFoundError):
        fetch(repo.id, "one.Q8_0.gguf")


def test_a_broken_upstream_can_change_what_a_commit_holds(hub):
    repo = hub.repo("acme/One-GGUF")
    url = hf_hub_url(repo.id, "one.Q8_0.gguf", revision=repo.sha, endpoint=hub.url)
    before = get_hf_file_metadata(url, token=False)
    assert repo.commit({"one.Q8_0.gguf": b"GGUF other bytes"}, commit_id=repo.sha) == before.commit_hash
    after = get_hf_file_metadata(url, token=False)
    assert (after.commit_hash, after.size) == (before.commit_hash, 16)
    assert after.etag == hashlib.sha256(b"GGUF other bytes").hexdigest() != before.etag
    # What was handed out before still is what it was.
    assert hashlib.sha256(httpx.get(before.location).content).hexdigest() == before.etag


def test_the_tree_lists_files_and_folders_in_pages(api, hub):
    repo = hub.repo("acme/Sharded-GGUF")
    hub.api.page_size = 2
    whole = [*api.list_repo_tree(repo.id, recursive=True)]
    assert {each.path for each in whole} == {*repo.main.files, "Q8_0"}
    assert len([each for each in hub.log if "/tree/" in each.path]) == 3
    for each in whole:
        if each.path != "Q8_0":
            blob = repo[each.path]
            assert (each.size, each.blob_id) == (blob.size, blob.oid)
            assert (each.lfs.sha256 if each.lfs else None) == (blob.sha256 if blob.lfs else None)
    assert {each.path for each in api.list_repo_tree(repo.id)} == {"Q8_0", "Sharded-Q4_K_M.gguf", "README.md"}
    assert len([*api.list_repo_tree(repo.id, "Q8_0")]) == 3
    with pytest.raises(errors.RemoteEntryNotFoundError):
        [*api.list_repo_tree(repo.id, "nowhere")]


def test_paths_info_by_form_and_by_json_leaves_unknown_paths_out(api, hub):
    repo = hub.repo("acme/Sharded-GGUF")
    found = api.get_paths_info(repo.id, ["README.md", "Q8_0", "nothing.gguf"])
    assert [each.path for each in found] == ["README.md", "Q8_0"]
    url = f"{hub.url}/api/models/{repo.id}/paths-info/main"
    assert [each["path"] for each in httpx.post(url, json={"paths": ["README.md", "x"]}).json()] == ["README.md"]


def test_search_filters_sorts_and_pages(api, hub):
    assert [each.id for each in api.list_models(search="tiny gguf")] == [TINY]
    by_downloads = [*api.list_models(filter="gguf", sort="downloads", author="acme")]
    counts = [each.downloads or 0 for each in by_downloads]
    assert counts == sorted(counts, reverse=True)
    assert by_downloads[0].id == TINY
    assert {"acme/Private-GGUF", "acme/Disabled-GGUF"}.isdisjoint(each.id for each in api.list_models())
    assert "acme/Private-GGUF" in {each.id for each in api.list_models(token=GOOD_TOKEN)}
    everything = [each.id for each in api.list_models()]
    hub.api.page_size = 3
    seen = len(hub.log)
    assert [each.id for each in api.list_models()] == everything
    assert len(hub.log) - seen == -(-len(everything) // 3)
    assert [each.id for each in api.list_models(limit=4)] == everything[:4]
    found = [*api.list_models(search="One", expand=["downloads", "gated"])]
    assert [(each.id, each.downloads, each.gated, each.likes) for each in found] == [
        ("acme/One-GGUF", 890, False, None)
    ]


def test_names_in_another_case_and_old_names_redirect(hub, api, fetch):
    assert api.model_info("ACME/tiny-gguf").id == TINY
    hub.rename("acme/One-GGUF", "acme/Uno-GGUF")
    assert api.model_info("acme/One-GGUF").id == "acme/Uno-GGUF"
    assert fetch("acme/One-GGUF", "one.Q8_0.gguf").is_file()


def test_hostile_names_are_served_as_they_are(api, hub):
    assert {*HOSTILE_NAMES} < {each.rfilename for each in api.model_info("hostile/Names").siblings or ()}
    assert any("\x1b" in tag for tag in api.model_info("hostile/Names").tags or ())


def test_whoami_and_unknown_api_paths(hub):
    said = httpx.get(f"{hub.url}/api/whoami-v2", headers={"authorization": f"Bearer {GOOD_TOKEN}"})
    assert said.json()["name"] == "goodtoken"
    assert httpx.get(f"{hub.url}/api/whoami-v2").status_code == 401
    assert httpx.get(f"{hub.url}/api/telemetry/x").status_code == 404
    assert httpx.get(f"{hub.url}/docs").status_code == 404


# -- refusals, as the exceptions the real library makes of them


@pytest.mark.parametrize("token", [False, STRANGER_TOKEN])
@pytest.mark.parametrize("repo", ["acme/nothing", "acme/Private-GGUF", "nothing"])
def test_missing_and_private_repos_cannot_be_told_apart(hub, fetch, repo, token):
    api = HfApi(endpoint=hub.url, token=token)
    for call in (api.model_info, api.auth_check, lambda id: fetch(id, "x.gguf", token=token)):
        with pytest.raises(errors.RepositoryNotFoundError) as caught:
            call(repo)
        assert type(caught.value) is errors.RepositoryNotFoundError
        assert caught.value.response.status_code == (404 if token else 401)


@pytest.mark.parametrize(("token", "status"), [(False, 401), (STRANGER_TOKEN, 403)])
@pytest.mark.parametrize(
    ("repo", "kind", "path"),
    [("acme/Gated-GGUF", "manual", "gated.Q4_K_M.gguf"), ("acme/Gated-Auto", "auto", "auto.Q4_K_M.gguf")],
)
def test_gated_repos_show_metadata_and_keep_files(hub, fetch, repo, kind, path, token, status):
    api = HfApi(endpoint=hub.url, token=token)
    assert api.model_info(repo).gated == kind
    assert api.list_repo_files(repo)
    for call in (lambda: api.auth_check(repo), lambda: fetch(repo, path, token=token)):
        with pytest.raises(errors.GatedRepoError) as caught:
            call()
        assert caught.value.response.status_code == status
    assert hub.served_bytes() == 0


def test_a_grant_opens_a_gated_repo(hub, fetch):
    hub.tokens[STRANGER_TOKEN] = {"acme/Gated-GGUF"}
    HfApi(endpoint=hub.url, token=STRANGER_TOKEN).auth_check("acme/Gated-GGUF")
    assert fetch("acme/Gated-GGUF", "gated.Q4_K_M.gguf", token=STRANGER_TOKEN).is_file()
    assert fetch("acme/Private-GGUF", "private.gguf", token=GOOD_TOKEN).is_file()


def test_a_bad_token_is_refused_everywhere(hub):
    with pytest.raises(errors.HfHubHTTPError) as caught:
        HfApi(endpoint=hub.url, token="hf_wrong").model_info(TINY)
    assert type(caught.value) is errors.HfHubHTTPError
    assert caught.value.response.status_code == 401
    assert "Invalid credentials in Authorization header" in str(caught.value)


def test_missing_revision_and_file(hub, api, fetch, tmp_path):
    with pytest.raises(errors.RevisionNotFoundError):
        api.model_info(TINY, revision="nope")
    with pytest.raises(errors.RevisionNotFoundError):
        fetch(TINY, WEIGHTS, revision="0" * 40)
    with pytest.raises(errors.RemoteEntryNotFoundError):
        fetch(TINY, "nope.gguf")
    # The commit in the refusal lets the library remember it.
    assert (tmp_path / "cache" / "models--acme--Tiny-GGUF" / ".no_exist" / hub.repo(TINY).sha / "nope.gguf").is_file()


def test_a_disabled_repo(hub, api, fetch):
    with pytest.raises(errors.DisabledRepoError):
        api.model_info("acme/Disabled-GGUF")
    with pytest.raises(errors.LocalEntryNotFoundError) as caught:
        fetch("acme/Disabled-GGUF", "disabled.gguf")
    assert isinstance(caught.value.__cause__, errors.DisabledRepoError)


def test_a_repo_can_be_removed_while_the_hub_runs(hub, api):
    hub.remove(TINY)
    with pytest.raises(errors.RepositoryNotFoundError):
        api.model_info(TINY)


def test_text_and_bytes_are_files_too():
    repo = HubRepo("a/b", {"a.txt": "ä", "b.gguf": b"", "big.txt": Generated(11 * MIB)}, commit_id="c" * 40)
    assert repo["a.txt"].read() == "ä".encode()
    assert (repo["a.txt"].lfs, repo["b.gguf"].lfs, repo["big.txt"].lfs) == (False, True, True)
    assert repo["b.gguf"].sha256 == hashlib.sha256(b"").hexdigest()
    assert repo.sha == "c" * 40
    assert io.BytesIO(repo["big.txt"].pointer).readline() == b"version https://git-lfs.github.com/spec/v1\n"
