"""What one cycle of the soak does, drawn from its seed alone: the same seed and number give the same cycle."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from tests.hub import MIB, RATE_LIMITED, Generated
from tests.hub.blobs import Source

KIB = 1024


@dataclass(frozen=True)
class Wanted:
    """One model to pull."""

    repo: str
    filename: str | None
    paths: tuple[str, ...]
    """All files it consists of."""


@dataclass(frozen=True)
class Step:
    """Something that happens once a share of the cycle's bytes has been served."""

    share: float
    what: str
    """`kill service`, `kill node`, `pause`, `cancel`, `move`, `limits`, `hub down`, `expire`, `drop`."""
    model: int = 0
    """Index of the model it happens to."""
    seconds: float = 0.0
    """How long a pause or an absence lasts."""


@dataclass(frozen=True)
class Ending:
    """What becomes of one model after the cycle."""

    keep: bool
    """Into the trash, not freed at once."""
    undo: bool
    kill: str = ""
    """What is killed right after the deletion was asked for; "" nothing."""


@dataclass(frozen=True)
class Cycle:
    """A whole plan."""

    number: int
    repos: dict[str, dict[str, Source]]
    models: tuple[Wanted, ...]
    rules: tuple[dict[str, Any], ...]
    steps: tuple[Step, ...]
    endings: tuple[Ending, ...]
    throttle_bps: float
    parallel: int

    def as_json(self) -> dict[str, Any]:
        """For the record of a cycle that went wrong."""
        told = asdict(self)
        told["repos"] = {repo: {path: repr(each) for path, each in files.items()} for repo, files in self.repos.items()}
        return told


def draw_cycle(seed: int, number: int) -> Cycle:
    """The plan of cycle `number`."""
    draw = random.Random(f"{seed} {number}")
    repos: dict[str, dict[str, Source]] = {}
    models: list[Wanted] = []
    for index in range(draw.randint(2, 5)):
        kind = draw.choice(("small", "medium", "large", "shards", "pair"))
        repo = f"soak/c{number}-m{index}-{kind}"
        fresh = number * 1000 + index * 10

        def content(size: int, which: int, fresh: int = fresh) -> Generated:
            return Generated(size + draw.randint(0, 9999), seed=fresh + which)

        if kind in ("small", "medium", "large"):
            size = {"small": 300 * KIB, "medium": 5 * MIB, "large": 24 * MIB}[kind]
            repos[repo] = {"m.gguf": content(size, 0), "README.md": "# Soak"}
            models.append(Wanted(repo, "m.gguf", ("m.gguf",)))
        elif kind == "shards":
            names = tuple(f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3))
            repos[repo] = {name: content(3 * MIB, n) for n, name in enumerate(names)}
            models.append(Wanted(repo, names[0], names))
        else:
            # Two repos with the same blob in both, and a small file that is no LFS object.
            files: dict[str, Source] = {
                "model.safetensors": content(4 * MIB, 0),
                "config.json": f'{{"fresh": {fresh}}}',
            }
            for twin in ("a", "b"):
                repos[f"{repo}-{twin}"] = files
                models.append(Wanted(f"{repo}-{twin}", None, ("model.safetensors", "config.json")))
    rules = tuple(_rule(draw, [*repos]) for _ in range(draw.randint(3, 9)))
    steps = [_step(draw, len(models)) for _ in range(draw.randint(1, 5))]
    kills = [
        Step(draw.uniform(0.0, 0.95), draw.choice(("kill service", "kill node"))) for _ in range(draw.randint(1, 3))
    ]
    return Cycle(
        number=number,
        repos=repos,
        models=tuple(models),
        rules=rules,
        steps=tuple(sorted([*steps, *kills], key=lambda each: each.share)),
        endings=tuple(_ending(draw) for _ in models),
        throttle_bps=draw.choice((4, 8, 12)) * MIB,
        parallel=draw.randint(1, 4),
    )


def _rule(draw: random.Random, repos: list[str]) -> dict[str, Any]:
    """One fault of the hub, for one repo, a few times."""
    at = draw.randint(1, 2 * MIB)
    rule: dict[str, Any] = draw.choice(
        (
            {"reset_after": at},
            {"reset_at_once": True},
            {"close_after": at},
            {"stall_after": at},
            {"drip_bytes": 100, "drip_s": 0.2},
            {"delay_s": draw.uniform(0.1, 2.0)},
            {"status": draw.choice((500, 502, 503, 504))},
            {"status": 429, "headers": dict(RATE_LIMITED)},
            {"status": 503, "headers": {"Retry-After": "1"}},
            {"expired": True},
            {"ignore_range": True},
            {"flip_at": at},
            {"headers": {"Content-Length": str(at)}},
            {"headers": {"Content-Range": "bytes 7-99/100"}},
        )
    )
    server, method = "cdn", "GET"
    if "status" in rule and draw.random() < 0.3:
        server, method = "hub", "HEAD"
    return {
        "path": f"{draw.choice(repos)}/*",
        "server": server,
        "method": method,
        "skip": draw.randint(0, 1),
        "times": draw.randint(1, 3),
        **rule,
    }


def _step(draw: random.Random, models: int) -> Step:
    what = draw.choice(("pause", "pause", "cancel", "move", "limits", "hub down", "expire", "drop"))
    return Step(draw.uniform(0.0, 0.9), what, draw.randrange(models), draw.uniform(0.1, 1.0))


def _ending(draw: random.Random) -> Ending:
    keep = draw.random() < 0.6
    return Ending(
        keep=keep, undo=keep and draw.random() < 0.6, kill=draw.choice(("", "", "", "kill node", "kill service"))
    )
