"""A HuggingFace hub on 127.0.0.1, for tests and the demo: answers as the live one, serves real files, fails on demand.

Two servers on two ports, hence two origins: the *hub* (what `HF_ENDPOINT` names: metadata, search, small files,
redirects) and the *CDN* (signed URLs with the bytes of LFS files). In a test::

    def test_something(hub):                      # fixture of tests/conftest.py: `standard_repos()`, function scope
        repo = hub.add(HubRepo("acme/tiny", {"tiny.gguf": Generated(8 * MIB, seed=1), "README.md": "# Tiny"}))
        settings = Settings(..., hf_endpoint=hub.url)      # or os.environ/child env: hub.env()
        ...
        assert path.read_bytes() == repo["tiny.gguf"].read()
        assert hub.served_bytes("acme/tiny/*") == repo["tiny.gguf"].size      # nothing was fetched twice

`huggingface_hub` reads `HF_ENDPOINT` at import: in-process calls pass `endpoint=hub.url`; children get `hub.env()`.

Content: `bytes`, `str`, a `Path`, or `Generated(size, seed, head)`, which costs nothing at any size.
`tests.hub.content` makes valid GGUF files (`gguf_bytes`, `gguf_of_size`, `gguf_shards`) and finds a real safetensors
repo (`minilm_files`); `standard_repos()` lists what the fixture serves. Files whose name ends in a weights suffix, or
that are over 10 MiB, are LFS: 302 to the CDN, etag = sha256. Others come from the hub, etag = git's sha1.
`repo["path"]` is a `Blob` (`size`, `sha256`, `oid`, `etag`, `lfs`, `read()`); `repo.sha` the commit of `main`;
`repo.commit()`, `change()`, `move()`, `remove()` make new commits (old ones stay reachable by id); `repo.gated`,
`private`, `disabled` may be set at any time.

Tokens: `GOOD_TOKEN` sees everything, `STRANGER_TOKEN` is valid but approved for nothing; `hub.tokens` can be changed.

Speed: `hub.throttle_bps = 2e6` (all file bodies together), `hub.connection_bps` (each), `hub.latency_s`: at run time.

Faults: `hub.fault(server="cdn", path="*.gguf", reset_after=MIB, times=3)`; `faults.Fault` documents its members. Also
`hub.down()`/`up()` (same ports; of one server if named), `hub.drop_connections()`, `hub.expire_signatures()`,
`hub.remove(id)`, `hub.rename(old, new)`. A stall that ends when the test says so, without a sleep::

    stall = hub.fault(server="cdn", stall_after=MIB)
    ...start a download...
    stall.stalled.wait(30)      # a response now stands still after its first MiB
    stall.release()

A mirror: `hub.api.mirror_etag = lambda repo, blob: '"deadbeef"'` serves files directly, with that ETag;
`hub.api.untold = lambda repo, path: True` leaves their checksums out of the metadata.

A hub that lies: any header, and any member of any JSON answer, says what the test wants, as often as it wants::

    hub.fault(method="HEAD", headers={"X-Repo-Commit": "../../x"}, times=None)
    hub.fault(path="/api/models/acme/tiny*", json={"sha": "main", "siblings.*.rfilename": "../x"}, times=None)

What was asked: `hub.log` and `hub.requests("*.gguf", server="cdn", method="GET")` give `Record`s (`headers`, `range`,
`authorization`, `status`, `sent`, `complete`); `hub.served_bytes(glob or sha256)` counts file bytes.
"""

from __future__ import annotations

from tests.hub.blobs import MIB, Blob, Generated
from tests.hub.faults import DROP, RATE_LIMITED, Fault
from tests.hub.messages import Record
from tests.hub.repos import HubRepo
from tests.hub.server import GOOD_TOKEN, STRANGER_TOKEN, LoopbackHub

__all__ = [
    "DROP",
    "GOOD_TOKEN",
    "MIB",
    "RATE_LIMITED",
    "STRANGER_TOKEN",
    "Blob",
    "Fault",
    "Generated",
    "HubRepo",
    "LoopbackHub",
    "Record",
]
