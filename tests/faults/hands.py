"""Two clients at once: orders that cross, and whether what became of the models agrees with what was acknowledged."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.faults.machine import Line, Refused
from tests.faults.rig import Rig, Violation, gone

ORDERS = ("pause", "resume", "first", "last", "retry", "delete", "delete", "undo", "undo", "register")
_ADDS, _REMOVES = frozenset({"undo", "register"}), frozenset({"delete"})


@dataclass(frozen=True)
class Order:
    """One order, from when it was sent until it was answered."""

    what: str
    name: str
    sent: float
    answered: float
    sure: bool
    """Whether it was acknowledged. One without an answer may or may not have been carried out."""


@dataclass
class Hand:
    """One client: a thread with a connection of its own."""

    rig: Rig
    draw: random.Random
    names: tuple[str, ...]
    count: int
    done: list[Order] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def run(self) -> None:
        line = Line()
        try:
            for _ in range(self.count):
                self._one(line, self.draw.choice(ORDERS), self.draw.choice(self.names))
                time.sleep(self.draw.choice((0.0, 0.0, 0.01, 0.1)))
        finally:
            line.close()

    def _one(self, line: Line, what: str, name: str) -> None:
        method, path, body = _request(self.rig, what, name)
        sent = time.monotonic()
        sure = False
        try:
            line.ask(self.rig.machine.info, method, path, body)
            sure = True
        except Refused as refused:
            self.rig.note(f"{what} {name}: {refused.status} {refused.code}")
            if refused.status == 500:
                self.broken.append(f"{what} {name}: {refused}")
            if refused.status < 500:
                return  # nothing was changed
        except OSError as error:
            self.rig.note(f"{what} {name}: {error!r}")
        order = Order(what, name, sent, time.monotonic(), sure)
        self.rig.note(f"{what} {name}: {'done' if sure else 'who knows'} after {order.answered - sent:.2f} s")
        self.done.append(order)
        if what == "delete":
            wanted = self.rig.plan.models[self.rig.names.index(name)]
            for at in (sent, order.answered):
                self.rig.excuse(wanted, at)


def _request(rig: Rig, what: str, name: str) -> tuple[str, str, object]:
    quoted = quote(name, safe="")
    match what:
        case "delete":
            return "DELETE", f"/v0/models/{quoted}?cancel=true&keep=true", None
        case "undo":
            return "POST", f"/v0/models/{quoted}/restore", None
        case "register":
            wanted = rig.plan.models[rig.names.index(name)]
            body = {"repo": wanted.repo} | ({"filename": wanted.filename} if wanted.filename else {})
            return "POST", "/v0/models/register", body
        case "first" | "last":
            return "POST", f"/v0/transfers/{quoted}/move", {"to": what}
        case _:
            return "POST", f"/v0/transfers/{quoted}/{what}", None


def cross(rig: Rig, seed: float, count: int = 8, *, meanwhile: Callable[[], None] | None = None) -> None:
    """Let two clients at three of the models at once; then compare.

    Args:
        meanwhile: What happens beside it.

    A model that is gone by their orders is gone from `rig.names` too: whoever wants it asks for it anew.

    Raises:
        Violation: Something that was acknowledged is not so.
    """
    names = tuple(name for name in rig.names if name)[:3]
    if not names:
        return
    paused = {name: bool(model["paused"]) for name, model in rig.models().items()}
    hands = [Hand(rig, random.Random(f"{seed} {which}"), names, count) for which in range(2)]
    threads = [threading.Thread(target=each.run, name=f"hand {n}") for n, each in enumerate(hands)]
    for each in threads:
        each.start()
    if meanwhile is not None:
        meanwhile()
    for each in threads:
        each.join(120)
        if each.is_alive():
            raise Violation("slow", f"the orders of two clients have not ended: {rig.told[-20:]}")
    broken = [said for each in hands for said in each.broken]
    if broken:
        raise Violation("stuck", f"{broken}\n{rig.machine.output()}")
    done = [order for each in hands for order in each.done]
    rig.commands.update(f"{each.what} beside another" for each in done)
    for name in names:
        _compare(rig, name, [each for each in done if each.name == name], paused[name])


def last_ones(orders: list[Order]) -> list[Order]:
    """Those that may have been carried out last: no other that was acknowledged came surely after them."""
    return [each for each in orders if not any(other.sure and other.sent > each.answered for other in orders)]


def possible(orders: list[Order], adds: frozenset[str], removes: frozenset[str], before: bool) -> set[bool]:
    """What may be so after these orders, each of which makes it so, or not so, or does not matter."""
    telling = [each for each in orders if each.what in adds | removes]
    after = {each.what in adds for each in last_ones(telling)}
    return after if any(each.sure for each in telling) else after | {before}


def _compare(rig: Rig, name: str, orders: list[Order], before: bool) -> None:
    model = rig.models().get(name)
    registered = model is not None and model["status"] != "deleting"
    may = possible(orders, _ADDS, _REMOVES, True)
    if registered not in may:
        told = "\n".join(map(str, sorted(orders, key=lambda each: each.sent)))
        raise Violation("lost", f"{name} is {'' if registered else 'not '}registered after\n{told}\n{model}")
    if registered and model is not None and not any(each.what in _ADDS | _REMOVES for each in orders):
        # Whether it is paused was told before it became whole; then it does not matter.
        paused = possible(orders, frozenset({"pause"}), frozenset({"resume"}), before)
        if model["status"] != "ready" and model["paused"] not in paused:
            told = "\n".join(map(str, orders))
            raise Violation("lost", f"{name} is {'' if model['paused'] else 'not '}paused after\n{told}")
    if not registered:
        gone(rig, name)
        rig.names[rig.names.index(name)] = None
