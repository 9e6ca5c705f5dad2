"""The ledger: whatever is asked of it, every unit is in exactly one column, and a refused request changes nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nvcore.api.errors import ContractError, OutOfResources, UsageError
from nvcore.api.grant import GrantRequest
from nvcore.api.inventory import Range
from nvcore.gpu.ledger import Ledger
from nvcore.vmm.runs import Runs, cut

MIB = 1 << 20


def small(**changes: int) -> Ledger:
    return Ledger(vram=[Range(0, 32 * MIB), Range(40 * MIB, 8 * MIB)], channels=Range(1, 63), bar1=16 * MIB, functions=4, heads=2)


class Model:
    """Ten lines: whose each unit of 4 KiB, and each id, is."""

    def __init__(self, ledger: Ledger) -> None:
        pages = [*range(0, 32 * MIB, 4096), *range(40 * MIB, 48 * MIB, 4096)]
        self.cells: dict[tuple[str, int], str] = {("vram", page): "free" for page in pages}
        self.cells |= {("channels", n): "free" for n in range(1, 64)} | {("functions", n): "free" for n in range(1, 5)}

    def move(self, kind: str, item: Range, was: str, now: str) -> None:
        for unit in range(item.start, item.end, 4096 if kind == "vram" else 1):
            assert self.cells[kind, unit] == was, f"{kind} {unit:#x} is {self.cells[kind, unit]}, not {was}"
            self.cells[kind, unit] = now


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger = small()
        self.model = Model(self.ledger)
        self.held: dict[str, str | None] = {}
        self.serial = 0

    @initialize()
    def fresh(self) -> None:
        assert self.ledger.check({}) == []

    def owned(self, name: str, kind: str) -> tuple[Range, ...]:
        return self.ledger.holds(name, kind)

    @rule(
        pages=st.integers(0, 3000),
        align=st.sampled_from([4096, 65536, 2 * MIB]),
        channels=st.integers(0, 40),
        function=st.integers(0, 5),
        top=st.booleans(),
        parent=st.integers(0, 5),
    )
    def take(self, pages: int, align: int, channels: int, function: int, top: bool, parent: int) -> None:
        self.serial += 1
        name, names = f"owner{self.serial}", sorted(self.held)
        above = names[parent % len(names)] if parent and names else None
        request = GrantRequest(
            name, vram=pages * 4096, vram_align=align, channels=channels, top_down=top, functions=(function,) if function else ()
        )
        before = self.ledger.rows()
        try:
            self.ledger.take(name, request, above)
            self.held[name] = above
        except OutOfResources:
            assert self.ledger.rows() == before, "a refused request changed the books"
            return
        for kind in ("vram", "channels", "functions"):
            for item in self.owned(name, kind):
                self.model.move(kind, item, above or "free", name)
                assert kind != "vram" or item.start % align == 0

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 10), stuck=st.booleans())
    def give_back(self, which: int, stuck: bool) -> None:
        names = sorted(self.held)
        name = names[which % len(names)]
        if name in self.held.values():
            return  # children first, as grants do
        for kind in ("vram", "channels", "functions"):
            for item in self.owned(name, kind):
                back = "quarantined" if stuck and kind == "vram" else self.held[name] or "free"
                self.model.move(kind, item, name, back)
        self.ledger.give_back(name, quarantine=("vram",) if stuck else ())
        del self.held[name]

    @rule()
    def reset(self) -> None:
        for item in self.ledger.quarantined("vram"):
            self.model.move("vram", item, "quarantined", "free")
        self.ledger.lift_quarantine()

    @rule(page=st.integers(0, 12287))
    def retire(self, page: int) -> None:
        try:
            self.ledger.retire("vram", Range(page * 4096, 4096))
        except ContractError:
            return
        was = self.model.cells["vram", page * 4096]
        assert was in ("free", "quarantined")
        self.model.cells["vram", page * 4096] = "retired"

    @invariant()
    def balanced(self) -> None:
        assert self.ledger.check(self.held) == []
        for row in self.ledger.rows():
            assert row.total == row.free + row.owned + row.quarantined + row.retired
            assert row.owned == sum(row.owners.values())
            if row.kind in ("vram", "channels", "functions"):
                unit = 4096 if row.kind == "vram" else 1
                cells = [owner for (kind, _), owner in self.model.cells.items() if kind == row.kind]
                assert row.free == cells.count("free") * unit and row.retired == cells.count("retired") * unit


LedgerMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
TestLedger = LedgerMachine.TestCase


@given(st.sets(st.integers(0, 30)), st.integers(0, 30), st.integers(1, 30))
@settings(max_examples=100, deadline=None)
def test_a_range_is_cut_at_the_borders_of_others_and_nothing_of_it_is_lost(borders: set[int], start: int, size: int) -> None:
    edges = sorted(borders)
    known = [Range(low, high - low) for low, high in zip(edges[::2], edges[1::2], strict=False)]
    pieces = cut(Range(start, size), known)
    assert [unit for _, piece in pieces for unit in range(piece.start, piece.end)] == list(range(start, start + size))
    for home, piece in pieces:
        assert home.contains(piece) if home is not None else not any(item.overlaps(piece) for item in known)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40), st.booleans()), max_size=40))
@settings(max_examples=100, deadline=None)
def test_runs_are_a_set_of_integers(steps: list[tuple[int, int, bool]]) -> None:
    runs, model = Runs(), set[int]()
    for start, size, add in steps:
        units = set(range(start, start + size))
        legal = not units & model if add else units <= model
        if legal:
            (runs.add if add else runs.remove)(start, start + size)
            model = model | units if add else model - units
        else:
            with pytest.raises(ContractError):
                (runs.add if add else runs.remove)(start, start + size)
    assert {unit for item in runs for unit in range(item.start, item.end)} == model and runs.total == len(model)
    found = list(runs)
    assert all(one.end < two.start for one, two in pairwise(found)), "merged and sorted"
    for size, align in ((1, 1), (5, 4), (16, 8)):
        places = [n for n in range(0, 256, align) if set(range(n, n + size)) <= model]
        assert runs.find(size, align) == (places[0] if places else None)
        assert runs.find(size, align, top_down=True) == (places[-1] if places else None)


def test_an_error_names_the_largest_free_piece_and_the_owners() -> None:
    ledger = small()
    ledger.take("web-01", GrantRequest("x", vram=30 * MIB))
    with pytest.raises(OutOfResources) as caught:
        ledger.take("web-02", GrantRequest("y", vram=16 * MIB, channels=8))
    assert "largest free piece 0x800000" in str(caught.value) and "web-01 0x1e00000" in str(caught.value)
    assert {row.kind: row.owned for row in ledger.rows()}["channels"] == 0


def test_exact_top_down_and_power_of_two_places() -> None:
    ledger = small()
    ledger.take("a", GrantRequest("a", vram=2 * MIB, vram_at=8 * MIB, channels=16, channels_at=16))
    assert ledger.holds("a", "vram") == (Range(8 * MIB, 2 * MIB),) and ledger.holds("a", "channels") == (Range(16, 16),)
    with pytest.raises(OutOfResources, match="at 0x900000"):
        ledger.take("b", GrantRequest("b", vram=MIB, vram_align=MIB, vram_at=9 * MIB))
    ledger.take("c", GrantRequest("c", vram=2 * MIB, top_down=True, channels=16, power_of_two_channels=True))
    assert ledger.holds("c", "vram") == (Range(46 * MIB, 2 * MIB),) and ledger.holds("c", "channels") == (Range(48, 16),)
    ledger.take("d", GrantRequest("d", channels=16, power_of_two_channels=True))
    assert ledger.holds("d", "channels") == (Range(32, 16),)


@pytest.mark.parametrize(
    "request_",
    [
        GrantRequest("x", vram=4095),
        GrantRequest("x", vram=4096, vram_align=12288),
        GrantRequest("x", vram=4096, vram_at=4097),
        GrantRequest("x", channels=12, power_of_two_channels=True),
        GrantRequest("x", bar1=4096),
        GrantRequest("x", functions=(1, 1)),
        GrantRequest("x", vram=-4096),
    ],
)
def test_a_request_that_is_not_whole_units_is_a_usage_error_and_changes_nothing(request_: GrantRequest) -> None:
    ledger = small()
    before = ledger.rows()
    with pytest.raises((UsageError, OutOfResources)):
        ledger.take("x", request_)
    assert ledger.rows() == before


def test_a_child_gets_nothing_that_its_parent_has_not() -> None:
    ledger = small()
    ledger.take("parent", GrantRequest("p", vram=4 * MIB, channels=8, functions=(2,)))
    with pytest.raises(OutOfResources):
        ledger.take("child", GrantRequest("c", vram=6 * MIB), "parent")
    with pytest.raises(OutOfResources):
        ledger.take("child", GrantRequest("c", functions=(3,)), "parent")
    ledger.take("child", GrantRequest("c", vram=2 * MIB, channels=8, functions=(2,)), "parent")
    assert ledger.owner_of("functions", 2) == "child" and ledger.owner_of("channels", 5) == "child"
    assert ledger.holds("parent", "channels") == ()
    ledger.give_back("child")
    assert ledger.owner_of("functions", 2) == "parent" and ledger.check({"parent": 0}) == []
    assert ledger.check({}) != []
