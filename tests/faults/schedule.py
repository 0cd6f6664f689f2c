"""What one cycle of the soak does, drawn from its seed alone: the same seed and number give the same cycle."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tests.faults.rollback import DATABASES, HOWS
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
    """`kill service`, `kill node`, `pause`, `cancel`, `move`, `limits`, `hub down`, `expire`, `drop`, `clock`, `fill`,
    `look`, `hands`, `copy databases`, `neighbour`, or `roll back WHO HOW`."""
    model: int = 0
    """Index of the model it happens to."""
    seconds: float = 0.0
    """How long a pause or an absence lasts, from 0.1 to 1; other steps draw from it what they do."""


@dataclass(frozen=True)
class Ending:
    """What becomes of one model after the cycle."""

    keep: bool
    """Into the trash, not freed at once."""
    undo: bool
    kill: str = ""
    """What is killed, or rolled back, right after the deletion was asked for; "" nothing."""
    by_command: bool = False
    """Asked for with `modelhub rm` and `undo`, not over the API."""


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
    slow_s: float = 0.0
    """How much longer every durable write takes."""
    shared: tuple[int, ...] = ()
    """The models that a second service on the same model folder pulls as well; none: there is no such service."""

    def without(self, words: Sequence[str]) -> Cycle:
        """The same without the steps, and what happens after a deletion, that begin with one of these words."""
        unwanted = tuple(words)
        steps = tuple(each for each in self.steps if not each.what.startswith(unwanted))
        endings = tuple(replace(each, kill="") if each.kill.startswith(unwanted) else each for each in self.endings)
        return replace(self, steps=steps, endings=endings, shared=() if "neighbour" in words else self.shared)

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
        kind = draw.choice(("small", "medium", "large", "shards", "pair", "many"))
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
        elif kind == "many":
            repos[repo] = {"model.safetensors": content(MIB, 0), "config.json": f'{{"fresh": {fresh}}}'}
            repos[repo] |= {f"part-{n:03}.txt": f"{fresh} {n} " * 200 for n in range(draw.randint(100, 300))}
            models.append(Wanted(repo, None, tuple(repos[repo])))
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
    steps = [_step(draw, len(models)) for _ in range(draw.randint(3, 7))]
    kills = [
        Step(draw.uniform(0.0, 0.95), draw.choice(("kill service", "kill node")), 0, draw.uniform(0.1, 1.0))
        for _ in range(draw.randint(1, 3))
    ]
    backs = [Step(draw.uniform(0.0, 0.95), _roll_back(draw)) for _ in range(draw.randint(0, 2))]
    slow_s = draw.choice((0.0, 0.0, 0.02, 0.1, 0.3))
    if any(len(each.paths) > 50 for each in models):
        slow_s = min(slow_s, 0.02)  # each file is synced by itself
    shared = tuple(n for n in range(len(models)) if draw.random() < 0.6) if draw.random() < 0.4 else ()
    return Cycle(
        number=number,
        repos=repos,
        models=tuple(models),
        rules=rules,
        steps=tuple(sorted([*steps, *kills, *backs], key=lambda each: each.share)),
        endings=tuple(_ending(draw) for _ in models),
        throttle_bps=draw.choice((4, 8, 12)) * MIB,
        parallel=draw.randint(1, 4),
        slow_s=slow_s,
        shared=shared,
    )


def _roll_back(draw: random.Random) -> str:
    return f"roll back {draw.choice([*DATABASES, 'router', 'both'])} {draw.choice(HOWS)}"


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


_TWICE = ("copy databases", "hands", "hands", "neighbour", "neighbour")


def _step(draw: random.Random, models: int) -> Step:
    what = draw.choice(
        ("pause", "pause", "cancel", "move", "limits", "hub down", "expire", "drop", "clock", "fill", "look", *_TWICE)
    )
    return Step(draw.uniform(0.0, 0.9), what, draw.randrange(models), draw.uniform(0.1, 1.0))


def _ending(draw: random.Random) -> Ending:
    keep = draw.random() < 0.6
    return Ending(
        keep=keep,
        undo=keep and draw.random() < 0.6,
        kill=draw.choice(("", "", "", "", "kill node", "kill service", _roll_back(draw))),
        by_command=draw.random() < 0.3,
    )
