"""Counting instructions in machine code: on a listing that was written by hand, where every count is known."""

from __future__ import annotations

import pytest

from framegate.benchmarks.gpu import model
from framegate.benchmarks.gpu.kernel_cases import GRID
from framegate.benchmarks.gpu.machine_code import cheapest_way, parse_listing
from framegate.cuda_kernels.compile.compiler import CompilerError

LISTING = """
\tcode for sm_90
\t\tFunction : loop
\t.headerflags\t@"EF_CUDA_SM90"
        /*0000*/                   S2R R0, SR_TID.X ;        /* 0x00 */
                                                             /* 0x01 */
        /*0010*/              @!P0 EXIT ;                    /* 0x00 */
        /*0020*/                   BSSY B0, 0x70 ;           /* 0x00 */
        /*0030*/               @P1 BRA 0x60 ;                /* 0x00 */
        /*0040*/                   LDG.E.EF.128 R4, desc[UR4][R4.64] ;  /* 0x00 */
        /*0050*/                   BRA 0x70 ;                /* 0x00 */
        /*0060*/                   BSYNC B0 ;                /* 0x00 */
        /*0070*/                   MUFU.EX2 R5, R4 ;         /* 0x00 */
        /*0080*/              @!P2 BRA 0x20 ;                /* 0x00 */
        /*0090*/                   STG.E [R2.64], R5 ;       /* 0x00 */
        /*00a0*/                   EXIT ;                    /* 0x00 */
        /*00b0*/                   BRA 0xb0;                 /* 0x00 */
"""


@pytest.fixture
def code():
    return parse_listing(LISTING)["loop"]


@pytest.mark.parametrize(
    ("loads", "exponentials", "instructions"),
    [
        (0, 0, 2),  # a warp without work leaves at once
        (0, 1, 9),  # the branch past the load, BSYNC and on
        (1, 1, 10),
        (2, 2, 16),  # the loop's second turn has six more
        (1, 3, 20),  # one turn with the load, two without it: 10 + 2 x 5
    ],
)
def test_the_cheapest_way_that_does_the_work(code, loads, exponentials, instructions):
    way = cheapest_way(code, {model.WIDE: loads, model.EXPONENTIAL: exponentials})
    assert way.instructions == sum(way.opcodes.values()) == instructions
    assert way.opcodes["MUFU.EX2"] == exponentials


def test_a_loop_that_ends_with_a_guarded_call_is_left(code):
    text = LISTING.replace("@!P2 BRA 0x20 ;", "@P2 CALL.REL.NOINC 0xa0 ;").replace("STG.E [R2.64], R5 ;", "BRA 0x20 ;")
    way = cheapest_way(parse_listing(text)["loop"], {model.WIDE: 2, model.EXPONENTIAL: 2})
    assert way.instructions == 2 + 6 + 1 + 6 + 1  # BRA back after the first turn, no store at the end


def test_work_that_no_way_does_is_an_error(code):
    with pytest.raises(ValueError, match="no way through"):
        cheapest_way(code, {r"HGMMA": 1})


def test_the_turns_of_a_loop_are_extrapolated_exactly(code):
    launch = model.plan(GRID[0], 1 << 20, dict.fromkeys(GRID[0].outputs, 1 << 20))
    one = {model.WIDE: 1, model.EXPONENTIAL: 1}
    for turns in (1, 2, 5):
        way = model.count(code, model.Work(launch, one, turns=turns))
        exact = cheapest_way(code, {opcode: turns * number for opcode, number in one.items()})
        assert (way.instructions, way.opcodes) == (exact.instructions, exact.opcodes)


def test_floors_and_what_is_expected_follow_from_counts(code):
    gpu = model.GPUS[0]
    way = model.Way(10, model.Counter({"MUFU.EX2": 2, "FMNMX": 1, "FFMA": 7}))
    floors = model.floors_of(gpu, warps=gpu.multiprocessors * 1980 * 4, way=way, nbytes=43_000_000)
    assert floors["bytes"] == pytest.approx(10)
    assert floors["instructions"] == pytest.approx(10)  # 1980 warps a scheduler, 10 cycles each, 1980 cycles in a us
    assert floors["exponentials"] == pytest.approx(4 * 2 * 2)
    assert floors["comparisons"] == pytest.approx(4 * 1 / 2)
    low, high = model.expected_us(floors)
    assert max(floors.values()) < low < high < floors["bytes"] + floors["exponentials"] + 1
    assert [model.verdict((low, high), t) for t in (high, (low + high) / 2, low - 0.1)] == ["kept", "open", "missed"]


def test_registers_and_blocks_limit_the_warps_of_a_multiprocessor():
    gpu = model.GPUS[0]
    assert model.warps_resident(gpu, registers=32, shared_bytes=0, threads=128) == 64
    assert model.warps_resident(gpu, registers=64, shared_bytes=0, threads=1024) == 32
    assert model.warps_resident(gpu, registers=40, shared_bytes=0, threads=128) == 48
    assert model.warps_resident(gpu, registers=32, shared_bytes=0, threads=32) == 32
    assert model.warps_resident(gpu, registers=32, shared_bytes=100 << 10, threads=128) == 8


def test_every_case_has_work_that_its_kernel_is_launched_for():
    for case in GRID:
        work = model.work_of(case)
        elements = 1
        for side in case.shape:
            elements *= side
        powers = work.turns * work.needs[model.EXPONENTIAL]
        assert work.warps * 32 * powers >= elements, case.name
        assert work.warps * 32 * powers <= 1.5 * elements + 32 * powers * 64, case.name


def test_without_nvcc_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(model.Nvcc, "find", lambda: None)
    assert model.main([]) == 1
    assert "no nvcc" in capsys.readouterr().err
    with pytest.raises(CompilerError, match="install a CUDA toolkit"):
        model.model()
