"""The plan of a disk: what it counts, and what it says."""

from __future__ import annotations

from modelhub_tui.disk_plan import DiskPlan, plan_for
from modelhub_tui.domain import Node, NodeStatus
from tests.unit.test_filtering import model


def test_the_trash_counts_as_free_and_is_named_when_there_is_no_room_without_it() -> None:
    small, roomy = (
        Node(name, name, NodeStatus.ONLINE, disk_free_bytes=free, trash_bytes=trash, disk_floor_bytes=500)
        for name, free, trash in (("small", 900, 100), ("roomy", 600, 2000))
    )
    wanted = model("Wanted", size_bytes=2500)
    plan = plan_for([wanted], [wanted], [small, roomy])
    assert plan == DiskPlan(needs=2500, free=2100, queued=0, trash=2000, floor=500) and plan.short_by == 400
    assert plan.sentence() == "needs 2 kB, free 2 kB (2 kB of it trash), kept free 500 B: short by 400 B"
    assert DiskPlan(50, 2100, 0, 2000).sentence() == "needs 50 B, free 2 kB"
    assert DiskPlan(50, 2100, 51, 2000).sentence() == "needs 50 B, free 2 kB (2 kB of it trash), other queued 51 B"
    # Below the floor the trash pays for that first.
    assert DiskPlan(50, 40, 0, 2000).sentence() == "needs 50 B, free 40 B (40 B of it trash): short by 10 B"


def test_what_is_kept_free_is_named_when_that_is_why_there_is_no_room() -> None:
    roomy = Node("a", "a", NodeStatus.ONLINE, disk_free_bytes=74_000, disk_floor_bytes=75_000)
    wanted = model("Wanted", size_bytes=10_000)
    plan = plan_for([wanted], [wanted], [roomy])
    assert plan is not None
    assert plan.sentence() == "needs 10 kB, free 0 B, kept free 75 kB: short by 10 kB"
    assert DiskPlan(needs=1_000, free=2_000, queued=0, floor=75_000).sentence() == "needs 1 kB, free 2 kB"
