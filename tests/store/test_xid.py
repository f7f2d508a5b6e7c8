"""Xid triage: every code once, the well-known ones in words of their own, and columns that exist."""

import re
from collections import Counter
from typing import get_args

import pytest

from store import xid
from store.events import GPU_SAMPLE
from store.xid import XIDS, Resolution, Severity, XidAdvice, advice_for, xid_page

FIRST_STEPS = {
    "restart_app": "8 11 13 25 31 32 39-41 60 68-72 75-77 80 82-86 88 89 94 96-105 126-135 139",
    "reset_gpu": "46 62 64 95 109 110 119 120 136 140 143 155 156 158",
    "reboot": "79",
    "restart_vm": "151",
    "check_hardware": "54",
    "update_software": "78",
    "check_uvm": "159",
    "see_other_xid": "45",
    "see_ecc": "48 171 172",
    "see_nvlink": "74 144-150",
    "see_recovery_action": "154",
    "none": "37 38 43 44 63 66 67 92 93 106 107 121 137 141 152 153 157 160 161",
    "contact_support": "61 142",
    "look_up": "162-170 999",
}
"""NVIDIA's catalogue as edited in October 2025, with 61 of older GPUs and what NVML says where it does not know."""
WELL_KNOWN = (13, 31, 43, 45, 48, 61, 62, 63, 64, 68, 69, 74, 79, 92, 94, 95, 119, 120, 140, 143, 154)


def codes(listed):
    """The numbers of `8 11 39-41`."""
    for word in listed.split():
        first, _, last = word.partition("-")
        yield from range(int(first), int(last or first) + 1)


def test_every_code_of_the_catalogue_has_its_first_step_exactly_once():
    assert Counter(code for one in xid._CLASSES for code in one.codes) == Counter(
        code for listed in FIRST_STEPS.values() for code in codes(listed)
    )
    assert {code: one.resolution for code, one in XIDS.items()} == {
        code: step for step, listed in FIRST_STEPS.items() for code in codes(listed)
    }
    assert list(XIDS) == sorted(XIDS)


def test_every_first_step_and_every_severity_is_used():
    assert {one.resolution for one in XIDS.values()} == set(get_args(Resolution))
    assert {one.severity for one in XIDS.values()} == set(get_args(Severity))


def test_every_name_and_every_exception_belongs_to_a_code_of_the_table():
    assert set(xid._NAMES) == set(XIDS)
    assert set(xid._WORDS) | set(xid._SEVERITIES) <= set(XIDS)
    assert [name for name, times in Counter(one.name for one in XIDS.values()).items() if times > 1] == []


def test_the_advice_for_a_code_is_whole():
    assert advice_for(95) == XidAdvice(
        code=95,
        name="memory error, not contained",
        severity="critical",
        resolution="reset_gpu",
        meaning="A memory error that ECC could not repair could not be confined: any program on the GPU may have wrong data.",
        what_to_do="Stop all programs on the GPU, distrust what they computed since, and reset it before the next one starts. "
        "Have it tested when the code returns.",
    )


@pytest.mark.parametrize("code", WELL_KNOWN)
def test_a_well_known_code_is_explained_in_words_of_its_own(code):
    others = [one for other, one in XIDS.items() if other != code]
    assert advice_for(code).meaning not in {one.meaning for one in others}
    assert advice_for(code).what_to_do not in {one.what_to_do for one in others}


def test_a_lesser_code_has_the_words_of_its_class():
    advice = advice_for(128)
    assert advice == XidAdvice(128, "copy engine 12 fault", "warning", "restart_app", advice.meaning, advice.what_to_do)
    assert (advice.meaning, advice.what_to_do) == (advice_for(8).meaning, advice_for(8).what_to_do)


@pytest.mark.parametrize(
    ("severity", "expected"),
    [
        ("critical", (48, 54, 62, 64, 74, 79, 95, 119, 120, 140, 143, 158, 167)),
        ("warning", (13, 31, 43, 45, 63, 68, 69, 92, 94, 149, 154, 157)),
        ("info", (37, 38, 44, 93, 106, 153, 160, 162)),
    ],
)
def test_a_lost_program_is_a_warning_and_a_lost_gpu_is_critical(severity, expected):
    assert [code for code in expected if advice_for(code).severity != severity] == []


@pytest.mark.parametrize("code", [0, 1, 87, 185, 1000, -1])
def test_an_unknown_code_is_answered_honestly(code):
    assert advice_for(code) == XidAdvice(
        code=code,
        name=f"Xid {code}",
        severity="warning",
        resolution="look_up",
        meaning="This version of gpuledger has no entry for this code.",
        what_to_do="Read the driver's message, and look the code up in NVIDIA's list. `recovery_action` says what the driver asks for.",
    )


@pytest.mark.parametrize("code", [*XIDS, 1000])
def test_the_words_are_sentences_and_name_only_columns_that_exist(code):
    advice = advice_for(code)
    for words in (advice.meaning, advice.what_to_do):
        assert re.fullmatch(r"[A-Z][^|\n]+\.", words)
        assert "  " not in words
        named = set(re.findall(r"`([a-z]+_[a-z_]+)`", words))
        assert named <= {column.name for column in GPU_SAMPLE.columns}


def test_the_page_has_a_row_for_each_code_and_each_first_step_and_a_chapter_for_each_that_is_explained():
    page = xid_page()
    assert re.findall(r"^\| (\d+) \| (.+) \| (\w+) \| `(\w+)` \|$", page, re.MULTILINE) == [
        (str(one.code), one.name, one.severity, one.resolution) for one in XIDS.values()
    ]
    assert set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)) == set(get_args(Resolution))
    chapters = dict(re.findall(r"^### Xid (\d+): .+\n\n(.+\n\n.+)$", page, re.MULTILINE))
    assert {int(code) for code in chapters} >= set(WELL_KNOWN)
    for code, text in chapters.items():
        assert text == f"{XIDS[int(code)].meaning}\n\nWhat to do: {XIDS[int(code)].what_to_do}"


def test_the_page_is_a_page_and_the_same_each_time():
    page = xid_page()
    assert page == xid_page()
    assert page.startswith("# Xids\n\nGenerated from `store/xid.py` by `gpuledger docs`; do not edit.\n\n")
    assert page.endswith(".\n")
    assert "\n\n\n" not in page
