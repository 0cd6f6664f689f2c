"""The demo: a hub with the catalog's models in small, and the program run against it."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from huggingface_hub import HfApi, errors, hf_hub_download

from modelhub_tui.catalog import check_catalog, load_catalog
from modelhub_tui.domain import CatalogEntry
from tests.hub import HubRepo, LoopbackHub, demo
from tests.hub.demo_content import Demo, build, choose, demo_size, downloads, likes, write_catalog

ROOT = Path(__file__).parents[2]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """`python -m tests.hub.demo --hub-only`, and the environment it prints."""
    command = [sys.executable, "-m", "tests.hub.demo", "--hub-only", "--models", "6", "--speed", "200"]
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        env = {}
        # The name printed last; the pipe ends early only if the demo failed.
        while "MODELHUB_CONFIG" not in env and (line := child.stdout.readline()):
            if line.startswith("export "):
                name, _, value = line.removeprefix("export ").strip().partition("=")
                env[name] = shlex.split(value)[0]
        assert "MODELHUB_CONFIG" in env, child.communicate(timeout=20)
        yield child, env
    finally:
        child.kill()
        child.communicate(timeout=20)


def test_the_demo_serves_what_its_catalog_says_and_leaves_nothing(running, tmp_path):
    child, env = running
    catalog = Path(env["MODELHUB_CATALOG"])
    assert check_catalog(catalog) == ()
    entries = load_catalog(catalog)
    gated = [each for each in entries if each.gated]
    assert len(gated) == 1
    api = HfApi(endpoint=env["HF_ENDPOINT"], token=False)
    with pytest.raises(errors.GatedRepoError):
        api.auth_check(gated[0].repo)
    entry = min((each for each in entries if not each.gated), key=lambda each: each.files[0].size_bytes or 0)
    path = hf_hub_download(entry.repo, entry.file, endpoint=api.endpoint, token=False, cache_dir=tmp_path / "hub")
    assert Path(path).stat().st_size == entry.files[0].size_bytes
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == entry.files[0].sha256
    assert Path(path).parent.name == entry.revision
    assert (api.model_info(entry.repo).downloads or 0) > 100

    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 0
    assert said.startswith("Demo: a hub on this machine serves")
    assert "Traceback" not in said
    assert not catalog.parent.exists()


def test_ended_from_outside_it_tidies_up_too(running):
    child, env = running
    child.terminate()
    _, said = child.communicate(timeout=30)
    assert child.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
    assert not Path(env["MODELHUB_CATALOG"]).parent.exists()


def test_it_runs_the_program_in_the_demos_own_environment_and_stops_the_service(tmp_path, monkeypatch, capfd):
    program = tmp_path / "modelhub"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys\n"
        "state = pathlib.Path(os.environ['MODELHUB_STATE_DIR'])\n"
        "state.mkdir(exist_ok=True)\n"
        "log = pathlib.Path(sys.argv[0]).with_name('calls')\n"
        "with log.open('a') as out:\n"
        "    print(*sys.argv[1:], os.environ.get('HF_TOKEN'), os.environ.get('MODELHUB_ROUTER'), file=out)\n"
        "sys.exit(0 if sys.argv[1:] == ['stop'] else 7)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(demo, "_program", lambda: str(program))
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setenv("MODELHUB_ROUTER", "http://elsewhere")
    assert demo.main(["--models", "4", "--keep", "--", "list", "--json"]) == 7
    assert (tmp_path / "calls").read_text() == "list --json None None\nstop None None\n"
    kept = next(tmp_path.glob("modelhub-demo-*"))
    assert f"Kept: {kept}" in capfd.readouterr().err
    assert (kept / "catalog.yaml").is_file()


def test_the_installed_program_pulls_over_the_bad_line_and_nothing_stays(small, tmp_path):
    options = ["--models", "8", "--speed", "200", "--", "pull", small.flaky.id]
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.demo", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).name == small.flaky.file
    assert [*tmp_path.glob("modelhub-demo-*")] == []
    started = [each for each in psutil.process_iter(["environ"]) if str(tmp_path) in str(each.info["environ"])]
    assert started == []


@pytest.mark.parametrize("said", ["--speed=0", "--speed=fast", "--nonsense"])
def test_wrong_options_are_a_usage_error(said, capfd):
    with pytest.raises(SystemExit) as ended:
        demo.main([said])
    assert ended.value.code == 2
    assert "usage:" in capfd.readouterr().err


@pytest.fixture(scope="module")
def small() -> Demo:
    """A demo of a few models, special ones among them."""
    return build(choose(load_catalog(), 8))


def test_the_catalog_keeps_texts_and_needs_and_gets_the_demos_sizes(small, tmp_path):
    write_catalog(small, tmp_path / "catalog.yaml")
    assert check_catalog(tmp_path / "catalog.yaml") == ()
    real = {each.id: each for each in load_catalog()}
    served = {each.id: each for each in small.repos}
    for made in load_catalog(tmp_path / "catalog.yaml"):
        model = real[made.id]
        assert (made.name, made.description, made.repo, made.tags) == (
            model.name,
            model.description,
            model.repo,
            model.tags,
        )
        assert made.required_memory_bytes == model.required_memory_bytes
        assert made.revision == served[made.repo].sha
        for file in (*made.files, *made.companions):
            blob = served[file.repo or made.repo][file.path]
            assert (file.size_bytes, file.sha256) == (blob.size, blob.sha256 if blob.lfs else None)
            assert blob.size < 150_000_000


def test_models_are_chosen_from_all_over_with_the_special_ones():
    entries = load_catalog()
    chosen = choose(entries, 10)
    assert 10 <= len(chosen) < 60
    assert [*chosen] == [each for each in entries if each in chosen]
    assert any(len(each.files) > 1 for each in chosen)
    assert any(each.companions for each in chosen)
    assert choose(entries, 0) == entries


def test_every_run_makes_the_same():
    entry = CatalogEntry("a", "A", "", "o/a", (load_catalog()[0].files[0],))
    assert build([entry]).catalog == build([entry]).catalog
    assert yaml.safe_load(yaml.safe_dump(build([entry]).catalog)) == build([entry]).catalog


def test_the_numbers_are_believable():
    counts = [downloads(f"owner/{at}") for at in range(500)]
    assert min(counts) > 100
    assert 1_000_000 < max(counts) < 20_000_000
    assert all(0 < likes(f"owner/{at}") < count for at, count in enumerate(counts))
    assert demo_size(4_700_000_000) == 24_000_000
    assert demo_size(1) == 4096


def test_the_bad_line_breaks_and_a_patient_client_gets_through(small, tmp_path):
    repo: HubRepo = next(each for each in small.repos if each.id == small.flaky.repo)
    blob = repo[small.flaky.file]
    with LoopbackHub(small.repos) as hub:
        hub.fault(server="cdn", path=f"{repo.id}/*", reset_after=demo._breaks_after(small), times=None)
        location = httpx.head(hub.resolve_url(repo.id, small.flaky.file)).headers["location"]
        got, tries = bytearray(), 0
        while len(got) < blob.size:
            tries += 1
            with httpx.stream("GET", location, headers={"range": f"bytes={len(got)}-"}) as answer:
                try:
                    for block in answer.iter_raw():
                        got += block
                except httpx.TransportError:
                    continue
    assert hashlib.sha256(got).hexdigest() == blob.sha256
    assert tries == 3
