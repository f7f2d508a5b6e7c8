"""The stand-in's answers about what a GPU is: platform, modes, licences, reach."""

NOT_SUPPORTED = "NVMLError_NotSupported"


def test_modes_answer_from_the_scenario(fake_nvml, nvml):
    fake_nvml.write(
        "gpu 0 ecc=1 ecc_pending=0 gsp_enabled=1 gsp_default=0 display_attached=1 display_active=1 accounting=1 "
        "accounting_buffer=9 virtualization=3 addressing=2 dram_encryption=1 c2c=1 module_id=4 board_part=900-1 "
        "app_clock_gr=1500 app_clock_mem=2619 default_app_clock_gr=1400 default_app_clock_mem=2600\ngpu 1"
    )
    answers = {
        "nvmlDeviceGetEccMode": [1, 0],
        "nvmlDeviceGetGspFirmwareMode": [1, 0],
        "nvmlDeviceGetDisplayMode": 1,
        "nvmlDeviceGetDisplayActive": 1,
        "nvmlDeviceGetAccountingMode": 1,
        "nvmlDeviceGetAccountingBufferSize": 9,
        "nvmlDeviceGetVirtualizationMode": 3,
        "nvmlDeviceGetAddressingMode": 2,
        "nvmlDeviceGetDramEncryptionMode": [1, 1],
        "nvmlDeviceGetModuleId": 4,
        "nvmlDeviceGetBoardPartNumber": "900-1",
    }
    assert {name: nvml.ask(f"{name}(gpu(0))") for name in answers} == answers
    clocks = "[nvmlDeviceGet{}(gpu(0), domain) for domain in (0, 2)]"
    assert nvml.ask(clocks.format("ApplicationsClock")) == [1500, 2619]
    assert nvml.ask(clocks.format("DefaultApplicationsClock")) == [1400, 2600]
    absent = ["nvmlDeviceGetAddressingMode", "nvmlDeviceGetDramEncryptionMode", "nvmlDeviceGetModuleId"]
    assert [nvml.ask(f"{name}(gpu(1))") for name in absent] == [NOT_SUPPORTED] * 3


def test_the_platform_is_told_where_there_is_one(fake_nvml, nvml):
    fake_nvml.write("gpu 0 chassis=1820325190001 slot=5 tray=2 host_id=1 peer_type=1 module_id=3\ngpu 1")
    run = "info = c_nvmlPlatformInfo_v2_t(); nvmlDeviceGetPlatformInfo(gpu({}), ctypes.byref(info))"
    assert nvml.ask("info", run=run.format(0)) == {
        "version": 0x0200002C,
        "ibGuid": "",
        "chassisSerialNumber": "1820325190001",
        "slotNumber": "\x05",
        "trayIndex": "\x02",
        "hostId": "\x01",
        "peerType": "\x01",
        "moduleId": "\x03",
    }
    assert nvml.ask("info", run=run.format(1)) == NOT_SUPPORTED


def test_licences_are_told_of_where_there_is_something_to_license(fake_nvml, nvml):
    fake_nvml.write("gpu 0 licensed=1\ngpu 1 licensed=0\ngpu 2")
    told = "[told.isGridLicenseSupported, told.licensableFeaturesCount, told.gridLicensableFeatures[0].featureState]"
    run = "told = nvmlDeviceGetGridLicensableFeatures(gpu({}))"
    assert [nvml.ask(told, run=run.format(gpu)) for gpu in range(3)] == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]


def test_how_gpus_reach_each_other_is_told_by_capability_and_of_both(fake_nvml, nvml):
    fake_nvml.write("gpu 0\ngpu 1\ngpu 2\ntopology gpu=0 peer=1 level=20 read=0 write=1 nvlink=5 atomics=4 pci=2")
    status = "[nvmlDeviceGetP2PStatus(gpu({}), gpu({}), index) for index in range(5)]"
    assert nvml.ask(status.format(0, 1)) == nvml.ask(status.format(1, 0)) == [0, 1, 5, 4, 2]
    assert nvml.ask(status.format(0, 2)) == [5] * 5
    assert nvml.ask("nvmlDeviceGetP2PStatus(gpu(0), gpu(1), 5)") == "NVMLError_InvalidArgument"
