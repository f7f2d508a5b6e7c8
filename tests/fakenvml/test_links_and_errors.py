"""The stand-in's NVLink, topology, ECC counts, remapped rows and retired pages."""

import pytest

NOT_SUPPORTED, INVALID_ARGUMENT = "NVMLError_NotSupported", "NVMLError_InvalidArgument"
UINT, ULL = 1, 3  # nvmlValueType_t

THREE_GPUS = """
gpu 0 uuid=GPU-a pci=00000000:1B:00.0
gpu 1 uuid=GPU-b pci=00000000:1C:00.0
gpu 2 uuid=GPU-c
nvlink gpu=0 link=0 version=6 remote=00000000:1C:00.0 ecc_errors=1 replays=11 tx_bytes=1000 rx_bytes=2000
nvlink gpu=0 link=1 version=7 remote=00000000:CD:00.0 remote_type=2 ecc_errors=2 replays=12
nvlink gpu=0 link=2 state=0
nvlink gpu=1 link=0 tx_bytes=5
topology gpu=0 peer=1 level=20
"""

ANSWERS = {
    "[nvmlDeviceGetNvLinkState(gpu(0), link) for link in range(3)]": [1, 1, 0],
    "[nvmlDeviceGetNvLinkVersion(gpu(0), link) for link in range(2)]": [6, 7],
    "[nvmlDeviceGetNvLinkRemoteDeviceType(gpu(0), link) for link in range(2)]": [0, 2],
    "nvmlDeviceGetNvLinkRemotePciInfo(gpu(0), 1)": {
        "busIdLegacy": "0000:CD:00.0",
        "domain": 0,
        "bus": 0xCD,
        "device": 0,
        "pciDeviceId": 0,
        "pciSubSystemId": 0,
        "busId": "00000000:CD:00.0",
    },
    "nvmlDeviceGetNvLinkVersion(gpu(0), 2)": NOT_SUPPORTED,
    "nvmlDeviceGetNvLinkRemotePciInfo(gpu(0), 2)": NOT_SUPPORTED,
    "nvmlDeviceGetNvLinkState(gpu(0), 3)": INVALID_ARGUMENT,
    "nvmlDeviceGetNvLinkState(gpu(2), 0)": NOT_SUPPORTED,
    "[nvmlDeviceGetTopologyCommonAncestor(gpu(0), gpu(peer)) for peer in range(3)]": [0, 20, 50],
    "nvmlDeviceGetTopologyCommonAncestor(gpu(1), gpu(0))": 20,
    "nvmlDeviceGetTopologyCommonAncestor(gpu(0), None)": INVALID_ARGUMENT,
}


def test_links_and_topology_answer_from_the_scenario(fake_nvml, nvml):
    fake_nvml.write(THREE_GPUS)
    assert {question: nvml.ask(question) for question in ANSWERS} == ANSWERS


def test_a_field_of_a_link_is_of_the_link_that_its_scope_names(fake_nvml, nvml):
    fake_nvml.write(THREE_GPUS)
    answer = nvml.ask("nvmlDeviceGetFieldValues(gpu(0), [(161, 0), (161, 1), (161, 2), (161, 3), (202, 0), (202, 1)])")
    assert answer == [
        [161, 0, 0, ULL, 11],
        [161, 1, 0, ULL, 12],
        [161, 2, 3, ULL, 0],
        [161, 3, 3, UINT, 0],
        [202, 0, 0, ULL, 1000],
        [202, 1, 3, ULL, 0],
    ]
    all_links = "nvmlDeviceGetFieldValues(gpu(0), [(160, 0), (165, 2), (202, 0xFFFFFFFF)])"
    assert nvml.ask(all_links) == [[160, 0, 0, ULL, 3], [165, 2, 0, UINT, 0], [202, 0xFFFFFFFF, 3, UINT, 0]]
    assert nvml.ask("nvmlDeviceGetFieldValues(gpu(1), [204, 202])") == [[204, 0, 3, ULL, 0], [202, 0, 0, ULL, 5]]


def test_errors_bytes_and_corrections_are_each_links_own(fake_nvml, nvml):
    errors = "replays=1 recoveries=2 crc_flit_errors=3 crc_data_errors=4 ecc_errors=5"
    fake_nvml.write(
        f"gpu 0 nvlink_tx=100\nnvlink gpu=0 link=0 tx_kib=7 {errors} values=9,2\nnvlink gpu=0 link=1 tx_kib=8"
    )
    assert nvml.ask("[nvmlDeviceGetNvLinkErrorCounter(gpu(0), 0, counter) for counter in range(5)]") == [1, 2, 3, 4, 5]
    assert nvml.ask("nvmlDeviceGetNvLinkErrorCounter(gpu(0), 1, 0)") == NOT_SUPPORTED
    assert nvml.ask("nvmlDeviceGetNvLinkErrorCounter(gpu(0), 0, 5)") == INVALID_ARGUMENT
    asked = "[(138, 0), (138, 1), (138, 2), (138, 0xFFFFFFFF), (235, 0), (236, 0), (237, 0), (235, 1)]"
    answer = nvml.ask(f"nvmlDeviceGetFieldValues(gpu(0), {asked})")
    assert [(code, value) for _, _, code, _, value in answer] == [
        (0, 7),
        (0, 8),
        (3, 0),
        (0, 100),
        (0, 9),
        (0, 2),
        (3, 0),
        (3, 0),
    ]


def test_a_peer_that_is_lost_has_no_common_ancestor(fake_nvml, nvml):
    fake_nvml.write(THREE_GPUS)
    nvml.run("a, b = gpu(0), gpu(1)")
    fake_nvml.write("gpu 0 uuid=GPU-a")
    assert nvml.ask("nvmlDeviceGetTopologyCommonAncestor(a, b)") == "NVMLError_GpuIsLost"


def test_ecc_totals_are_the_counters_and_not_supported_without_ecc(fake_nvml, nvml):
    counts = "ecc_corrected_volatile=1 ecc_corrected_aggregate=2 ecc_uncorrected_volatile=3 ecc_uncorrected_aggregate=4"
    fake_nvml.write(f"gpu 0 {counts} ecc_corrected_volatile_step=10")
    totals = "[nvmlDeviceGetTotalEccErrors(gpu(0), kind, counter) for kind in range(2) for counter in range(2)]"
    assert nvml.ask(totals) == [1, 2, 3, 4]
    assert nvml.ask(totals, run="nvmlDeviceGetFieldValues(gpu(0), [3])") == [11, 2, 3, 4]
    assert nvml.ask("nvmlDeviceGetTotalEccErrors(gpu(0), 2, 0)") == INVALID_ARGUMENT
    fake_nvml.write(f"gpu 0 ecc=0 {counts}")
    assert nvml.ask("nvmlDeviceGetTotalEccErrors(gpu(0), 0, 0)") == NOT_SUPPORTED


def test_remapped_rows_are_those_of_the_fields(fake_nvml, nvml):
    fake_nvml.write(
        "gpu 0 remapped_correctable=1 remapped_uncorrectable=2 remapped_pending=1 remapped_failed=0\n"
        "gpu 1 remapped_correctable=none"
    )
    assert nvml.ask("nvmlDeviceGetRemappedRows(gpu(0))") == [1, 2, 1, 0]
    assert nvml.ask("nvmlDeviceGetRemappedRows(gpu(1))") == NOT_SUPPORTED


def test_retired_pages_are_listed_by_cause_in_both_versions(fake_nvml, nvml):
    fake_nvml.write(
        """
        gpu 0 retired_sbe=0 retired_pending=1
        gpu 1
        retired_page gpu=0 cause=1 address=0x1000 t_us=5
        retired_page gpu=0 cause=1 address=0x2000
        """
    )
    assert nvml.ask("[nvmlDeviceGetRetiredPages(gpu(0), cause) for cause in range(2)]") == [[], [0x1000, 0x2000]]
    assert nvml.ask("[nvmlDeviceGetRetiredPages_v2(gpu(0), cause) for cause in range(2)]") == [
        [],
        [{"address": 0x1000, "timestamp": 5}, {"address": 0x2000, "timestamp": 0}],
    ]
    assert nvml.ask("nvmlDeviceGetRetiredPagesPendingStatus(gpu(0))") == 1
    assert nvml.ask("nvmlDeviceGetRetiredPages(gpu(0), NVML_PAGE_RETIREMENT_CAUSE_COUNT)") == INVALID_ARGUMENT
    remapping = ["nvmlDeviceGetRetiredPages(gpu(1), 0)", "nvmlDeviceGetRetiredPagesPendingStatus(gpu(1))"]
    assert [nvml.ask(question) for question in remapping] == [NOT_SUPPORTED] * 2


def test_too_small_an_array_of_retired_pages_is_filled_and_told_the_size(fake_nvml, nvml):
    fake_nvml.write("gpu 0\nretired_page gpu=0 cause=0 address=1\nretired_page gpu=0 cause=0 address=2")
    answer = nvml.ask(
        "[result, count.value, list(pages)]",
        run="count, pages = c_uint(1), (ctypes.c_ulonglong * 2)()\n"
        "result = call('nvmlDeviceGetRetiredPages', gpu(0), 0, ctypes.byref(count), pages)",
    )
    assert answer == [7, 2, [1, 0]]


WRONG_LINES = {
    "nvlink gpu=0 state=1": "of which link: nvlink",
    "nvlink gpu=0 link=0 speed=5": "no such setting: speed",
    "topology gpu=0 peer=1": "of which level: topology",
    "topology gpu=0 peer=1 level=20": "no such GPU: topology",
    "retired_page gpu=0 cause=1": "of which address: retired_page",
    "gpu 0 cpus=all": "not a list of CPUs: all",
}


@pytest.mark.parametrize(("line", "complaint"), WRONG_LINES.items(), ids=WRONG_LINES)
def test_a_wrong_line_about_links_or_pages_is_told(fake_nvml, started, line, complaint):
    fake_nvml.write(f"gpu 0\n{line}\n")
    nvml = started(fake_nvml.environment)
    assert nvml.ask("nvmlInit()") == "NVMLError_Unknown"
    assert nvml.close() == f"fake_nvml: {fake_nvml.scenario_path}:2: {complaint}\n"
