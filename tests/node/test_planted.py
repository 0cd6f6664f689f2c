"""What somebody may have planted in a cache: links, loops, pipes, devices, false maps, second names of files."""

from __future__ import annotations

import json
import os
import stat
import struct
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from huggingface_hub import hf_hub_download

from modelhub_tui.identifiers import BadIdentifier, OutsideError, is_commit
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.chunkmap import CHUNK_BYTES, ChunkMap, mapped_bytes, new_map
from modelhub_tui.service.node.folders import Folder
from modelhub_tui.service.node.found import Finder
from modelhub_tui.service.node.hasher import Verdict, look_at
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.part import Part
from modelhub_tui.service.node.removal import linked_blobs, refs_of, remove_files, tidy
from modelhub_tui.service.node.trash import Binned
from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread, start_process
from tests.node.outside import Outside, fingerprint
from tests.node.stub_router import StubRouter, manifest_of
from tests.node.test_trash import COMMIT, OTHER, REPO, STORE, Place

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "machine")
    yield made
    made.record.close()


@pytest.fixture
def home(place: Place) -> Path:
    return place.cache.repo_dir(REPO)


def device(path: Path) -> None:
    """Something that never ends: a device of our own, or a link to one where nobody may make any."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/full")


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": device,
    "link to a pipe": lambda path: (os.mkfifo(path.with_name("a-pipe")), path.symlink_to("a-pipe"))[1],
    "loop": lambda path: path.symlink_to(path.name),
    "folder": lambda path: path.mkdir(),
    "huge": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "spot",
    [
        "refs",
        "refs/main",
        "refs/heads/x",
        "snapshots",
        f"snapshots/{COMMIT}",
        f"snapshots/{COMMIT}/planted.gguf",
        f"snapshots/{COMMIT}/sub",
        "trees",
        f"trees/{COMMIT}.json",
        ".no_exist",
        "blobs/" + "e" * 64,
        "blobs/" + "e" * 64 + ".modelhub.part",
        "blobs/" + "e" * 64 + ".modelhub.map",
        "blobs/" + "e" * 64 + ".modelhub.trash",
        f"../.locks/models--acme--tiny/{'e' * 64}.lock",
    ],
)
def test_nothing_planted_is_waited_for_or_read_whole(place: Place, home: Path, spot: str, kind: str) -> None:
    """Whatever it is and wherever it lies: finding, fetching, removing and the trash come to an end."""
    file = place.put("fine.gguf", b"GGUF fine")
    at = home / spot
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_dir():
        at.rename(place.path.parent / "aside")
    KINDS[kind](at)
    theirs = File(REPO, COMMIT, "planted.gguf", 0, "e" * 64, commit=COMMIT, fetched=True)
    if not os.path.lexists(home / "snapshots"):
        (home / "snapshots").mkdir()
    tracemalloc.start()
    try:
        Finder(place.cache).scan()
        refs_of(place.cache, [file])
        for each in (file, theirs, replace(theirs, size=5)):
            place.cache.is_whole(each)
            place.cache.part_bytes(each)
        if at.exists() and not at.is_dir():
            assert look_at(str(at), "e" * 64, 0, threading.Event()) is Verdict.DAMAGED
        try:
            with Part(place.cache, replace(theirs, size=4), 4) as part:
                part.append(memoryview(b"four"))
                place.cache.publish(replace(theirs, size=4), part.fd)
        except OSError as error:
            assert isinstance(error, OutsideError | NotADirectoryError | IsADirectoryError | FileExistsError), error
        place.trash.recover()
        place.trash.discard("fine", STORE, (file, theirs))
        place.trash.free(["fine"])
        remove_files(place.cache, [file, theirs])
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
    finally:
        tracemalloc.stop()
    if spot.startswith("snapshots/") and not spot.endswith(COMMIT):
        assert not place.cache.path_of(file).exists()


def test_a_node_finds_and_fetches_beside_all_of_it(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    """The real process, started on a cache in which one repo after the other is a trap."""
    good = empty_hub.add(HubRepo("acme/good", {"good.gguf": Generated(MIB, seed=1)}))
    wanted = empty_hub.add(HubRepo("acme/wanted", {"a.gguf": Generated(MIB, seed=2)}))
    cache = Cache(tmp_path / "hub")
    hf_hub_download(good.id, "good.gguf", cache_dir=cache.root, endpoint=empty_hub.url, token=False)
    for number, spot in enumerate(("refs/main", f"trees/{COMMIT}.json", f"snapshots/{COMMIT}/x.gguf", "snapshots")):
        for kind, make in KINDS.items():
            home = cache.root / f"models--acme--{number}-{kind.replace(' ', '-')}"
            (home / spot).parent.mkdir(parents=True)
            make(home / spot)
            (home / "blobs").mkdir()
            if spot != "snapshots":
                (home / "snapshots").mkdir(exist_ok=True)
    cache.prepare(wanted.id, wanted.sha)
    cache.part(wanted.id, wanted["a.gguf"].etag).write_bytes(b"x" * 10)
    false_map(cache.map(wanted.id, wanted["a.gguf"].etag), MIB, 1, 68 + 8 * MIB)
    router.register("acme/wanted", manifest_of(wanted))
    process = start_process(router, empty_hub, tmp_path)
    try:
        router.wait_whole("acme/wanted")
        found = router.wait(lambda: router.found)
        assert [group["repo"] for group in found] == ["acme/good"]
        router.remove("acme/wanted")
        router.wait_gone("acme/wanted")
        assert psutil.Process(process.pid).memory_info().rss < 400 * MIB
    finally:
        process.terminate()
        process.wait(30)


def test_links_that_lead_in_circles_come_to_an_end(place: Place, home: Path) -> None:
    file = place.put("sub/fine.gguf", b"GGUF fine")
    for folder in (
        home,
        home / "snapshots",
        home / "snapshots" / COMMIT,
        home / "snapshots" / COMMIT / "sub",
        home / "blobs",
    ):
        (folder / "round").symlink_to(".")
        (folder / "up").symlink_to("..")
    (home / "refs").symlink_to("snapshots")
    finder = Finder(place.cache)
    finder.scan()
    assert [[each.path for each in group.files] for group in finder.groups] == [["sub/fine.gguf"]]
    remove_files(place.cache, [file])
    assert not os.path.lexists(place.cache.path_of(file)) and not place.cache.blob(REPO, str(file.etag)).exists()


def test_a_link_put_there_between_check_and_use_leads_nowhere(
    place: Place, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody replaces a folder by a link at each moment at which one is entered or a name in it is looked at."""
    outside = Outside(tmp_path / "home", COMMIT, ("1.gguf", "sub/1.gguf"))
    spots = ["snapshots", f"snapshots/{COMMIT}", f"snapshots/{COMMIT}/sub", "refs", "trees"]
    for spot in spots:
        for moment in range(1, 40):
            file = place.put("sub/1.gguf", b"one")
            (home / "refs").mkdir(exist_ok=True)
            (home / "refs" / "main").write_text(COMMIT)
            (home / "trees").mkdir(exist_ok=True)
            (home / "trees" / f"{COMMIT}.json").write_text("{}")
            seen = 0

            def swap(*_: object, spot: str = spot, moment: int = moment) -> None:
                nonlocal seen
                seen += 1
                if seen == moment and (home / spot).is_dir():
                    (home / spot).rename(tmp_path / "moved")
                    (home / spot).symlink_to(outside.root)

            with monkeypatch.context() as patch:
                for name in ("enter", "names", "lstat", "target", "unlink", "rmdir", "read"):
                    real = getattr(Folder, name)

                    def hooked(self: Folder, *args: Any, real: Any = real, **more: Any) -> Any:
                        swap()
                        return real(self, *args, **more)

                    patch.setattr(Folder, name, hooked)
                try:
                    remove_files(place.cache, [file])
                    place.cache.prepare(REPO, COMMIT)
                    place.cache.blob(REPO, str(file.etag)).write_bytes(b"one")
                    place.cache.make_link(file)
                    place.cache.write_ref(REPO, "main", COMMIT)
                except OSError:
                    pass
            outside.assert_untouched()
            if os.path.lexists(home / spot) and (home / spot).is_symlink():
                (home / spot).unlink()
            os.system(f"rm -rf '{tmp_path / 'moved'}' '{home}'")


def test_a_link_to_blobs_elsewhere_takes_only_names_of_ours(place: Place, home: Path, tmp_path: Path) -> None:
    """People move blobs to another disk. What else lies there stays, also with a snapshot's link to it."""
    file = place.put("1.gguf", b"one")
    disk = tmp_path / "disk"
    (home / "blobs").rename(disk)
    (home / "blobs").symlink_to(disk)
    (disk / "thesis.txt").write_text("mine")
    (disk / "pictures").mkdir()
    own = tmp_path / "own.gguf"
    own.write_bytes(b"my own")
    for name, target in (("own.gguf", own), ("2.gguf", disk / "thesis.txt"), ("pictures", disk / "pictures")):
        (home / "snapshots" / COMMIT / name).symlink_to(target)
    assert place.cache.is_whole(file) and linked_blobs(place.cache, REPO) == {file.etag}
    theirs = [File(REPO, COMMIT, each, 4, "d" * 64, commit=COMMIT) for each in ("own.gguf", "2.gguf", "pictures")]
    place.trash.discard("tiny", STORE, (file, *theirs))
    place.trash.free(["tiny"])
    assert {each.name for each in disk.iterdir()} == {"thesis.txt", "pictures"}
    assert own.read_bytes() == b"my own"
    assert {each.name for each in (home / "snapshots" / COMMIT).iterdir()} == {"own.gguf", "2.gguf", "pictures"}


def test_the_blobs_of_another_repo_are_its_own(place: Place) -> None:
    other = place.put("theirs.gguf", b"theirs", repo="acme/other")
    mine = place.put("1.gguf", b"one")
    link = place.cache.path_of(replace(mine, path="2.gguf"))
    link.symlink_to(f"../../../models--acme--other/blobs/{other.etag}")
    claimed = File(REPO, COMMIT, "2.gguf", 6, other.etag, commit=COMMIT, done=True, fetched=True)
    place.trash.discard("tiny", STORE, (mine, claimed))
    place.trash.free(["tiny"])
    remove_files(place.cache, [mine, claimed])
    assert place.cache.path_of(other).read_bytes() == b"theirs" and link.is_symlink()


def test_a_whole_repo_or_cache_behind_a_link_works_as_any(place: Place, home: Path, tmp_path: Path) -> None:
    file = place.put("sub/1.gguf", b"GGUF one")
    place.cache.write_ref(REPO, "main", COMMIT)
    home.rename(tmp_path / "repo")
    home.symlink_to(tmp_path / "repo")
    (tmp_path / "link").symlink_to(place.cache.root)
    cache = Cache(tmp_path / "link")
    finder = Finder(cache)
    finder.scan()
    assert cache.is_whole(file) and [group.repo for group in finder.groups] == [REPO]
    assert refs_of(cache, [file]) == ((REPO, "main", COMMIT),)
    remove_files(cache, [file])
    assert not [*(tmp_path / "repo").iterdir()] and home.is_symlink()


# -- the library's store of shared blobs -----------------------------------------------------------------------------


def shared(place: Place, repos: tuple[str, ...] = (REPO,)) -> tuple[File, Path]:
    """A file as the library's Xet path leaves it: snapshot, blob, store; and its content's place there."""
    xet, etag, root = "ab" * 32, "e" * 64, place.cache.root
    content = root / "blobs" / "ab" / xet
    content.parent.mkdir(parents=True)
    (root / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    content.write_bytes(b"shared")
    names = []
    for repo in reversed(repos):
        file = File(repo, COMMIT, "1.gguf", 6, etag, commit=COMMIT, done=True, fetched=True)
        place.cache.prepare(repo, COMMIT)
        place.cache.blob(repo, etag).symlink_to(f"../../blobs/ab/{xet}")
        place.cache.make_link(file)
        names.append(f"{place.cache.repo_dir(repo).name}/blobs/{etag}\n")
    content.with_name(f"{xet}.refs").write_text("".join(names))
    assert place.cache.path_of(file).read_bytes() == b"shared"
    return file, content


def test_the_library_decides_about_its_store_of_shared_blobs(place: Place) -> None:
    file, content = shared(place, (REPO, "acme/other"))
    place.trash.discard("tiny", STORE, (file,))
    assert content.read_bytes() == b"shared" and not place.cache.repo_dir(REPO).exists()
    remove_files(place.cache, [replace(file, repo="acme/other")])
    assert not content.exists()


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a pipe", "loop", "folder", "huge"])
@pytest.mark.parametrize("note", ["{}.refs", "{}.lock", "../.huggingface-shared-blobs"])
def test_a_store_with_planted_notes_is_left_to_the_library(place: Place, note: str, kind: str) -> None:
    file, content = shared(place)
    at = content.parent / note.format(content.name)
    at.unlink(missing_ok=True)
    KINDS[kind](at)
    remove_files(place.cache, [file])
    assert content.read_bytes() == b"shared" and not place.cache.repo_dir(REPO).exists()


@pytest.mark.parametrize("spot", ["blobs", "blobs/ab"])
def test_a_store_that_leads_out_is_not_the_caches(place: Place, tmp_path: Path, spot: str) -> None:
    file, _ = shared(place)
    (place.cache.root / spot).rename(tmp_path / "home")
    (place.cache.root / spot).symlink_to(tmp_path / "home")
    before = fingerprint(tmp_path / "home")
    finder = Finder(place.cache)
    finder.scan()
    assert finder.groups == ()
    remove_files(place.cache, [file])
    assert fingerprint(tmp_path / "home") == before and not place.cache.repo_dir(REPO).exists()


# -- second names of somebody's files --------------------------------------------------------------------------------


def test_a_file_with_a_second_name_is_not_written_to(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    """Hard links under all names that a pull opens for writing; the pull arrives, the files are what they were."""
    repo = empty_hub.add(HubRepo("acme/tiny", {"tiny.gguf": Generated(12 * MIB, seed=1)}))
    cache, etag = Cache(tmp_path / "hub"), repo["tiny.gguf"].etag
    cache.prepare(repo.id, repo.sha)
    own = tmp_path / "home"
    own.mkdir()
    locks = cache.root / ".locks" / "models--acme--tiny"
    locks.mkdir(parents=True)
    mapping = cache.map(repo.id, etag)
    named = (cache.part(repo.id, etag), mapping, new_map(mapping), cache.blob(repo.id, etag), locks / f"{etag}.lock")
    for number, name in enumerate(named):
        mine = own / str(number)
        mine.write_bytes(b"mine" * 1000)
        name.hardlink_to(mine)
    before = {path: each[2] for path, each in fingerprint(own).items()}
    router.register("acme/tiny", manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path, parallel_bytes=8 * MIB, fast_bps=10**12):
        placed = router.wait_whole("acme/tiny")
        assert Path(placed["path"]).read_bytes() == repo["tiny.gguf"].read()
        router.remove("acme/tiny")
        router.wait_gone("acme/tiny")
    assert {path: each[2] for path, each in fingerprint(own).items()} == before


# -- maps ------------------------------------------------------------------------------------------------------------


def false_map(path: Path, size: int, chunk: int, length: int) -> None:
    path.write_bytes(struct.pack("<16sQQ36s", b"modelhub map 1\n\0", size, chunk, b"x" * 36))
    os.truncate(path, length)


@pytest.mark.parametrize(
    ("size", "chunk", "length"),
    [
        (1 << 24, 1, 68),
        (1 << 24, 1, 68 + 8 * (1 << 24)),
        (1 << 53, 1 << 29, 68),
        (1 << 53, CHUNK_BYTES, 68 + 8 * (1 << 31)),
        (10 * MIB, CHUNK_BYTES, 67),
        (10 * MIB, CHUNK_BYTES, 68 + 8 * 3 - 1),
        (10 * MIB, 0, 68),
    ],
)
def test_a_false_map_costs_no_memory_and_is_none(tmp_path: Path, size: int, chunk: int, length: int) -> None:
    path = tmp_path / "x.modelhub.map"
    false_map(path, size, chunk, length)
    tracemalloc.start()
    try:
        assert ChunkMap.load(path, size) is None
        assert mapped_bytes(path, size, size) is None and mapped_bytes(path, 5, 10 * MIB) is None
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_counts_that_no_chunk_can_have_are_no_map(tmp_path: Path) -> None:
    path = tmp_path / "x.modelhub.map"
    size = 2 * CHUNK_BYTES + 10
    ChunkMap.create(path, size, CHUNK_BYTES + 3).close()
    assert mapped_bytes(path, size, size) == CHUNK_BYTES + 3
    for at, count in ((0, CHUNK_BYTES + 1), (2, 11)):
        ChunkMap.create(path, size, CHUNK_BYTES + 3).close()
        with path.open("r+b") as file:
            file.seek(68 + 4 * at)
            file.write(struct.pack("<I", count))
        assert mapped_bytes(path, size, size) is None
    with pytest.raises(OSError, match="too large"):
        ChunkMap.create(path, 1 << 53, 0)


# -- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["X-Repo-Commit", "ETag", "X-Linked-Etag"])
def test_a_branch_is_resolved_to_a_commit_or_to_nothing(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, header: str
) -> None:
    """An upstream router's list names a branch; the commit, and so the folder, is what a HEAD says then."""
    outside = Outside(tmp_path / "home", COMMIT)
    words = ("../" * 12 + str(outside.root)[1:], str(outside.root), "../../../../home", "..", "main", "A" * 40, "con")
    for number, word in enumerate(words):
        repo = empty_hub.add(HubRepo(f"acme/m{number}", {"a.gguf": f"GGUF {number}".encode()}))
        empty_hub.fault(path=f"{repo.id}/*", method="HEAD", headers={header: word}, times=None)
        bare = {"sha256": None, "size": None, "revision": "main"}
        router.register(repo.id, [{**each, **bare} for each in manifest_of(repo)])
    with NodeThread(router, empty_hub, tmp_path / "machine", max_attempts=1, restart_base_s=600) as node:
        for number in range(len(words)):
            name = f"acme/m{number}"
            router.wait(lambda name=name: router.placement(name) or (router.transfer(name) or {}).get("error"))
            if header == "X-Repo-Commit":
                assert router.placement(name) is None
        cache = node.cache
    assert all(is_commit(each.name) for each in cache.glob("models--*/snapshots/*"))
    assert {each.name for each in tmp_path.iterdir()} == {"home", "machine"}
    assert {each.name for each in (tmp_path / "machine").iterdir()} <= {"state", "cache", "hub"}
    outside.assert_untouched()


BAD = ("..", ".", "", "/etc", "../x", "a/b", "a\0b", "x" * 300, None)


@pytest.mark.parametrize("word", BAD, ids=ascii)
def test_no_path_is_made_of_a_word_that_is_no_name(place: Place, word: Any) -> None:
    cache, file = place.cache, File(REPO, COMMIT, "a.gguf", 1, "e" * 64, commit=COMMIT)
    makers: list[Callable[[], object]] = [
        *(lambda make=make: make(REPO, word) for make in (cache.blob, cache.part, cache.map, cache.trashed)),
        lambda: cache.repo_dir(f"acme/{word}" if word is not None else word),
        lambda: cache.link(REPO, word, "a.gguf"),
        lambda: cache.link(REPO, COMMIT, f"a/../{word}"),
        lambda: cache.prepare(REPO, word),
        lambda: cache.write_ref(REPO, "main", word),
        lambda: cache.write_ref(REPO, f"../{word}", COMMIT),
        lambda: cache.make_link(replace(file, commit=word)),
        lambda: cache.snapshot(replace(file, path=f"../{word}/x"), make=True),
        lambda: File.from_json({**file.as_json(), "commit": word or "x"}),
        lambda: File.from_json({**file.as_json(), "repo": f"acme/../{word}"}),
        lambda: File.from_json({**file.as_json(), "path": f"../{word}"}),
        lambda: File.from_json({**file.as_json(), "etag": word if word is not None else "../x"}),
    ]
    for make in makers:
        with pytest.raises((BadIdentifier, AssertionError)):
            make()
    for field, value in (
        ("blobs", [[REPO, word]]),
        ("refs", [[REPO, "main", word]]),
        ("refs", [[REPO, f"../{word}", COMMIT]]),
    ):
        body = {"files": [], "blobs": [], "refs": [], "at": 0, "stage": "kept", field: value}
        with pytest.raises((ValueError, TypeError)):
            Binned.from_json("x", None, json.loads(json.dumps(body)))
    assert not place.cache.root.exists() or not [*place.cache.root.rglob("*")]


def test_a_record_of_a_model_with_a_hostile_commit_is_left_out(place: Place) -> None:
    """As older versions wrote it down: it costs itself, and not the start of the node."""
    from modelhub_tui.service.node.record import Entry

    good = File(REPO, OTHER, "a.gguf", 1, "e" * 64, commit=OTHER)
    place.record.put(Entry("good", STORE, files=(good,)))
    place.record.put(Entry("evil", STORE, files=(replace(good, commit="../../../x"),)))
    assert [each.name for each in place.record.entries()] == ["good"]


def test_names_of_shards_that_are_not_there_cost_no_time(place: Place) -> None:
    """Each of these names speaks of 99,999 others."""
    file = place.put("x.gguf", b"GGUF")
    for number in range(2000):
        path = f"{number}-00001-of-99999.{'gguf' if number % 2 else 'safetensors'}"
        place.cache.path_of(replace(file, path=path)).symlink_to(f"../../blobs/{file.etag}")
    place.cache.path_of(replace(file, path="config.json")).symlink_to(f"../../blobs/{file.etag}")
    tracemalloc.start()
    try:
        finder = Finder(place.cache)
        finder.scan()
        assert tracemalloc.get_traced_memory()[1] < 20 * MIB
    finally:
        tracemalloc.stop()
    assert [[each.path for each in group.files] for group in finder.groups] == [["x.gguf"]]


def test_a_tree_of_folders_costs_what_its_folders_cost_however_deep(
    place: Place, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide at the bottom of a deep one: entered anew from the top, each of these would be hundreds of folders."""
    deep, wide = 300, 300
    place.cache.prepare(REPO, COMMIT)
    with Folder.at(home) as top, top.enter("snapshots", COMMIT, *["d"] * deep, make=True) as bottom:
        for number in range(wide):
            os.mkdir(f"w{number}", dir_fd=bottom.fd)
    opened = 0
    enter = Folder.enter

    def counted(self: Folder, *names: str, **options: Any) -> Folder:
        nonlocal opened
        opened += len(names)
        return enter(self, *names, **options)

    monkeypatch.setattr(Folder, "enter", counted)
    before = len(os.listdir("/dev/fd"))
    linked_blobs(place.cache, REPO)
    assert opened < 2 * (deep + wide)
    tidy(place.cache, REPO)
    assert opened < 12 * (deep + wide)
    assert not home.exists() and len(os.listdir("/dev/fd")) == before


def test_a_walk_enters_no_link_that_takes_the_place_of_a_folder_it_was_in(place: Place, tmp_path: Path) -> None:
    (tmp_path / "outside" / "b").mkdir(parents=True)
    place.cache.prepare(REPO, COMMIT)
    with place.cache.home(REPO) as top, top.enter("snapshots", COMMIT) as snapshot:
        snapshot.enter("a", "b", make=True).close()
        snapshot.enter("a", "c", make=True).close()
        seen = []
        for where, _folder, _names in snapshot.walk():
            seen.append(where)
            if where == ("a", "b"):
                (snapshot.path / "a").rename(snapshot.path / "was-a")
                (snapshot.path / "a").symlink_to(tmp_path / "outside")
        assert seen == [(), ("a",), ("a", "b"), ("a", "c")]
