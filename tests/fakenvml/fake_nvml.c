/*
 * A stand-in for NVIDIA's libnvidia-ml.so.1: the machine is a text file, so the real nvidia-ml-py (struct layouts,
 * version words, error classes and all) runs in tests without a GPU.  Built by plugin.py beside this file.
 *
 * FAKE_NVML_SCENARIO names the scenario file.  It is looked at (one stat) on every call and read again when it changed,
 * so a test can change the machine under a running collector; replace the file atomically.  Without the variable the
 * machine is two idle H200.  A line that makes no sense is told on stderr and every call returns UNKNOWN (999) until
 * the file is right: a typo must not look like a quiet machine.
 *
 *   # a comment; values are decimal or 0x hex; quotes hold blanks together; after a keyword, settings in any order
 *   driver 580.95.05
 *   cuda 13000
 *   mismatch 1                    # LIB_RM_VERSION_MISMATCH from all while `driver` is not what it was when this
 *                                 # image of the library was mapped: only unmapping it and loading it anew helps
 *   clock_us 1795435200000000     # the driver's own clock stands there (field values, samples); else it goes with ours
 *   gpu 0 uuid=GPU-1b name="NVIDIA H200" util=37 power_mw=312345 energy_mj=1000 energy_step_mj=250
 *   gpu 1 fan=none                # lines of one GPU add up; `none` makes a value NOT_SUPPORTED
 *   gpu 1 lost_after=5            # GPU_IS_LOST from the 6th call with its handle on; a changed number counts anew
 *   gpu 1 nothing_new=0           # SUCCESS with no samples, not NOT_FOUND, where no sample or process is newer
 *   gpu 2 unified=1               # memory info NOT_SUPPORTED, as on GB10; unified=total0: SUCCESS and total 0
 *   mig gpu=0 gi=1 ci=0 uuid=MIG-a profile=1g.18gb memory_total=18253611008 memory_used=5 sms=16  # turns MIG on
 *   process gpu=0 pid=123 memory=1048576 type=compute   # or graphics, mps; memory=none; gi= ci= for MIG
 *   process gpu=0 pid=124 type=compute sm=40 mem=10 enc=0 dec=0 t_us=5  # with sm= its utilization is told too
 *   nvlink gpu=0 link=0 state=1 version=6 remote=00000000:1C:00.0 remote_type=0 tx_bytes=5 replays=1
 *   nvlink gpu=0 link=1 tx_kib=5 values=9,2,0   # as Hopper counts; the values are the FEC histogram from 0 errors on
 *   topology gpu=0 peer=1 level=20 read=0 nvlink=5  # said of both, with P2P status by capability; else two GPUs have
 *                                 # only the system in common (50) and no P2P (5)
 *   retired_page gpu=0 cause=1 address=0x1234000 t_us=5
 *   field 82 3                    # this field id answers this code; gpu=N limits it to one GPU
 *   field 297 0 value=12 type=1   # or this value, for ids that the lists below lack or have of another type
 *   fail nvmlInit 9               # a function answers this code; gpu=N as above; `*` is every function
 *   missing nvmlDeviceGetTemperatureV   # the same with FUNCTION_NOT_FOUND: a symbol cannot be taken back
 *   hang nvmlDeviceGetUtilizationRates 30000 gpu=0      # for so many ms, or until the line is gone
 *
 * What happens over time, in activity.c:
 *
 *   sample gpu=0 type=0 t_us=1000 value=312345  # one entry of the buffer behind nvmlDeviceGetSamples, in this order;
 *                                 # t_us=0 is a placeholder and comes along, as does stale=1; value_type=0 for doubles
 *   samples gpu=0 type=1 period_us=20000 depth=120 values=80,90,100     # one each period of the driver's clock, the
 *                                 # values in turn; without values an empty buffer; placeholders=2 unsorted=1
 *   gpm gpu=0 1=87.5 2=80 7=none  # GPM metrics by id; gi=1 for those of a MIG instance; supported=0, streaming=1
 *   gpm gpu=0 no_permission_after=5     # NO_PERMISSION from the 6th sample on; a changed number counts anew
 *   metric 5 4                    # this GPM metric answers this code; gpu=N and gi=N limit it
 *   xid gpu=0 code=79             # one event for whoever is registered when the line is first seen
 *   event gpu=0 type=0x8000 data=2      # the same of another type
 *   events gpu=0 supported=0x800F # the types that can be registered
 *
 * A function is named as pynvml calls it; without its _vN the name stands for all its versions.  What can be said of a
 * GPU are the lists TEXTS, NUMBERS and COUNTERS in fake_nvml.h, where their defaults are too; what a line of another
 * keyword needs and takes is `keywords` in scenario.c.  A counter reads its value plus its step for every
 * nvmlDeviceGetFieldValues call that was answered before; it goes on across a rewritten file unless its own value was
 * changed there, which is how to reset it.  GPUs are numbered from 0 without gaps.  A handle stands for a UUID: one
 * that left the file answers GPU_IS_LOST (INVALID_ARGUMENT if it was a MIG device's), one that joined it is there at
 * once.  What the file has no line for is NOT_SUPPORTED: samples of a type, GPM, NVLink, MIG.
 *
 * -DOLD_DRIVER builds a driver of the 470 branch: later symbols are not exported and later field ids not known.
 * Seen on no hardware: which value type the real driver gives each field, which of the answers that a MIG device does
 * not support are INVALID_ARGUMENT there, and whether a wait goes on answering GPU_IS_LOST.  A test that depends on one
 * sets it.
 */
#include "fake_nvml.h"

#include <stdlib.h>
#include <string.h>

/* What the collector's recorder looks for, so that no recording of this library passes for one of hardware. */
const int gpuledger_stand_in = 1;

enum { MODULE = 1, MEMORY = 2 }; /* NVML_POWER_SCOPE_* */
#define FIELD(id, type, name) SCOPED_FIELD(id, 0, type, name)
#define SCOPED_FIELD(id, scope, type, name) {id, scope, type, offsetof(Gpu, name)}
static const struct { uint id, scope, type; size_t offset; } fields[] = {
    FIELD(3, ULL, ecc_corrected_volatile), FIELD(4, ULL, ecc_uncorrected_volatile),
    FIELD(5, ULL, ecc_corrected_aggregate), FIELD(6, ULL, ecc_uncorrected_aggregate),
    FIELD(29, ULL, retired_sbe), FIELD(30, ULL, retired_dbe), FIELD(31, ULL, retired_pending),
    FIELD(74, ULL, throttle_sw_power_ns), FIELD(75, ULL, throttle_thermal_ns),
    FIELD(76, ULL, throttle_sync_boost_ns), FIELD(77, ULL, throttle_board_limit_ns),
    FIELD(78, ULL, throttle_low_utilization_ns), FIELD(79, ULL, throttle_reliability_ns),
    FIELD(80, ULL, throttle_application_clocks_ns), FIELD(81, ULL, throttle_base_clocks_ns),
    FIELD(82, UINT, mem_temp), FIELD(83, ULL, energy_mj), FIELD(94, UINT, pcie_replay),
    FIELD(138, ULL, nvlink_tx), FIELD(139, ULL, nvlink_rx),
    FIELD(140, ULL, nvlink_raw_tx), FIELD(141, ULL, nvlink_raw_rx),
    FIELD(142, UINT, remapped_correctable), FIELD(143, UINT, remapped_uncorrectable),
    FIELD(144, UINT, remapped_pending), FIELD(145, UINT, remapped_failed),
    FIELD(185, UINT, power_mw), FIELD(186, UINT, power_instant_mw),
    SCOPED_FIELD(185, MODULE, UINT, module_power_mw), SCOPED_FIELD(186, MODULE, UINT, module_power_instant_mw),
    SCOPED_FIELD(190, MODULE, UINT, module_power_limit_mw), SCOPED_FIELD(185, MEMORY, UINT, memory_power_mw),
    FIELD(187, UINT, power_min_limit_mw), FIELD(188, UINT, power_max_limit_mw),
    FIELD(189, UINT, power_default_limit_mw), FIELD(190, UINT, power_limit_mw),
    FIELD(191, ULL, energy_mj), FIELD(192, UINT, power_requested_limit_mw),
    FIELD(193, INT, tlimit_shutdown), FIELD(194, INT, tlimit_slowdown),
    FIELD(195, INT, tlimit_mem_max), FIELD(196, INT, tlimit_gpu_max),
    FIELD(197, ULL, pcie_tx), FIELD(198, ULL, pcie_rx), FIELD(230, UINT, recovery_action),
    FIELD(170, UINT, c2c_links), FIELD(231, ULL, c2c_interrupts), FIELD(232, ULL, c2c_replays),
    FIELD(233, ULL, c2c_replays_b2b), FIELD(274, UINT, edpp_percent),
    FIELD(301, UINT, remapped_correctable_inactive), FIELD(302, UINT, remapped_uncorrectable_inactive),
    FIELD(269, ULL, throttle_sw_thermal_ns), FIELD(270, ULL, throttle_hw_thermal_ns),
    FIELD(271, ULL, throttle_hw_power_brake_ns),
    FIELD(303, UINT, bank_remaps_active), FIELD(304, UINT, bank_remaps_inactive), FIELD(305, UINT, bank_spares_max),
    FIELD(306, UINT, bank_spares_none), FIELD(307, UINT, bank_remap_pending),
};

static Result put_text(char *out, uint size, const char *text) {
    if (!strcmp(text, "none"))
        return NOT_SUPPORTED;
    return (uint)snprintf(out, size, "%s", text) < size ? SUCCESS : INSUFFICIENT_SIZE;
}

/* ---- the functions, by the symbols that nvidia-ml-py looks up ---- */

Result nvmlInitWithFlags(uint flags) {
    (void)flags;
    LOCKED;
    refresh();
    hang(__func__, ABSENT);
    Result result = driver_trouble();
    if (result == SUCCESS)
        result = scripted(__func__, ABSENT);
    init_count += result == SUCCESS;
    return result;
}

Result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

Result nvmlShutdown(void) {
    ON_MACHINE(1);
    if (--init_count == 0)
        close_event_sets();
    return SUCCESS;
}

const char *nvmlErrorString(Result result) {
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
        "Already Initialized", "Not Found", "Insufficient Size", "Insufficient External Power", "Driver Not Loaded",
        "Timeout", "Interrupt Request Issue", "NVML Shared Library Not Found", "Function Not Found",
        "Corrupted infoROM", "GPU is lost", "GPU requires reset",
        "The operating system has blocked the request", "Driver/library version mismatch",
    };
    return result < LENGTH(texts) ? texts[result] : "Unknown Error";
}

Result nvmlSystemGetDriverVersion(char *out, uint size) {
    ON_MACHINE(out);
    return put_text(out, size, said("driver", DRIVER));
}

Result nvmlSystemGetCudaDriverVersion_v2(int *out) {
    ON_MACHINE(out);
    *out = atoi(said("cuda", CUDA));
    return SUCCESS;
}

Result nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }

Result nvmlSystemGetNVMLVersion(char *out, uint size) {
    char text[2 * TEXT_SIZE];
    ON_MACHINE(out);
    snprintf(text, sizeof text, "%d.%s", atoi(said("cuda", CUDA)) / 1000, said("driver", DRIVER));
    return put_text(out, size, text);
}

Result nvmlDeviceGetCount_v2(uint *out) {
    ON_MACHINE(out);
    *out = (uint)now.gpu_count;
    return SUCCESS;
}

/* The GPU's handle or, where `mig` is given, that MIG device's of it. */
static Result open_device(const char *function, const Gpu *gpu, const Entry *mig, Device *out) {
    if (!gpu)
        return NOT_FOUND;
    if (is_lost(gpu))
        return GPU_IS_LOST;
    *out = mig ? handle_of(mig->uuid, 1) : handle_of(gpu->uuid, 0);
    return *out ? scripted(function, gpu->index) : INSUFFICIENT_RESOURCES;
}

Result nvmlDeviceGetHandleByIndex_v2(uint index, Device *out) {
    ON_MACHINE(out && index < (uint)now.gpu_count);
    return open_device(__func__, &now.gpus[index], NULL, out);
}

Result nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    ON_MACHINE(uuid && out);
    const Entry *mig = mig_of(uuid);
    return open_device(__func__, mig ? parent_of(mig) : gpu_of(uuid), mig, out);
}

Result nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, Device *out) {
    uint asked[3] = {0}, own[3] = {0};
    Gpu *found = NULL;
    ON_MACHINE(bus_id && out && sscanf(bus_id, "%x:%x:%x", &asked[0], &asked[1], &asked[2]) == 3);
    for (int i = 0; i < now.gpu_count && !found; i++)
        if (sscanf(now.gpus[i].pci, "%x:%x:%x", &own[0], &own[1], &own[2]) == 3 && !memcmp(own, asked, sizeof own))
            found = &now.gpus[i];
    return open_device(__func__, found, NULL, out);
}

#define TEXT_GETTER(symbol, entrance, setting) \
    Result symbol(Device device, char *out, uint size) { \
        entrance(out); \
        return put_text(out, size, gpu.setting); \
    }
TEXT_GETTER(nvmlDeviceGetName, ON_DEVICE_OR_MIG, name)
TEXT_GETTER(nvmlDeviceGetUUID, ON_DEVICE_OR_MIG, uuid)
TEXT_GETTER(nvmlDeviceGetSerial, ON_DEVICE, serial)
TEXT_GETTER(nvmlDeviceGetVbiosVersion, ON_DEVICE, vbios)
TEXT_GETTER(nvmlDeviceGetInforomImageVersion, ON_DEVICE, inforom)
TEXT_GETTER(nvmlDeviceGetBoardPartNumber, ON_DEVICE, board_part)
GETTER(nvmlDeviceGetIndex, uint, index)
GETTER(nvmlDeviceGetBrand, uint, brand)
GETTER(nvmlDeviceGetArchitecture, uint, architecture)
PAIR_GETTER(nvmlDeviceGetCudaComputeCapability, cc_major, cc_minor)
GETTER(nvmlDeviceGetNumGpuCores, uint, cores)
GETTER(nvmlDeviceGetMinorNumber, uint, minor_number)
PAIR_GETTER(nvmlDeviceGetEncoderUtilization, encoder_util, sampling_period_us)
PAIR_GETTER(nvmlDeviceGetDecoderUtilization, decoder_util, sampling_period_us)
NTH_GETTER(nvmlDeviceGetTemperature, gpu.temp)
NTH_GETTER(nvmlDeviceGetTemperatureThreshold, gpu.temp_shutdown, gpu.temp_slowdown, gpu.temp_mem_max,
           gpu.temp_gpu_max, gpu.temp_acoustic_min, gpu.temp_acoustic, gpu.temp_acoustic_max, gpu.temp_gps)
NTH_GETTER(nvmlDeviceGetClockInfo, gpu.clock_gr, gpu.clock_sm, gpu.clock_mem, gpu.clock_video)
NTH_GETTER(nvmlDeviceGetMaxClockInfo, gpu.max_clock_gr, gpu.max_clock_sm, gpu.max_clock_mem, gpu.max_clock_video)
GETTER(nvmlDeviceGetPerformanceState, uint, pstate)
GETTER(nvmlDeviceGetPowerState, uint, pstate)
GETTER(nvmlDeviceGetCurrentClocksThrottleReasons, ull, reasons)
GETTER(nvmlDeviceGetSupportedClocksThrottleReasons, ull, supported_reasons)
GETTER(nvmlDeviceGetPowerUsage, uint, power_mw)
GETTER(nvmlDeviceGetEnforcedPowerLimit, uint, power_limit_mw)
GETTER(nvmlDeviceGetPowerManagementLimit, uint, power_limit_mw)
GETTER(nvmlDeviceGetPowerManagementDefaultLimit, uint, power_default_limit_mw)
PAIR_GETTER(nvmlDeviceGetPowerManagementLimitConstraints, power_min_limit_mw, power_max_limit_mw)
GETTER(nvmlDeviceGetTotalEnergyConsumption, ull, energy_mj)
GETTER(nvmlDeviceGetFanSpeed, uint, fan)
GETTER(nvmlDeviceGetNumFans, uint, fans)
GETTER(nvmlDeviceGetDisplayMode, uint, display_attached)
GETTER(nvmlDeviceGetDisplayActive, uint, display_active)
GETTER(nvmlDeviceGetAccountingMode, uint, accounting)
GETTER(nvmlDeviceGetAccountingBufferSize, uint, accounting_buffer)
GETTER(nvmlDeviceGetVirtualizationMode, uint, virtualization)
NTH_GETTER(nvmlDeviceGetApplicationsClock, gpu.app_clock_gr, gpu.app_clock_gr, gpu.app_clock_mem)
NTH_GETTER(nvmlDeviceGetDefaultApplicationsClock, gpu.default_app_clock_gr, gpu.default_app_clock_gr,
           gpu.default_app_clock_mem)
GETTER(nvmlDeviceGetPersistenceMode, uint, persistence)
GETTER(nvmlDeviceGetComputeMode, uint, compute_mode)
GETTER(nvmlDeviceGetCurrPcieLinkGeneration, uint, pcie_gen)
GETTER(nvmlDeviceGetCurrPcieLinkWidth, uint, pcie_width)
GETTER(nvmlDeviceGetMaxPcieLinkGeneration, uint, max_pcie_gen)
GETTER(nvmlDeviceGetMaxPcieLinkWidth, uint, max_pcie_width)
GETTER(nvmlDeviceGetPcieReplayCounter, uint, pcie_replay)
NTH_GETTER(nvmlDeviceGetPcieThroughput, gpu.pcie_tx_kb_per_s, gpu.pcie_rx_kb_per_s)
GETTER(nvmlDeviceGetRetiredPagesPendingStatus, uint, retired_pending)
GETTER(nvmlDeviceGetSupportedEventTypes, ull, event_types)

Result nvmlDeviceGetFanSpeed_v2(Device device, uint fan, uint *out) {
    ON_DEVICE(out && (gpu.fan == ABSENT || fan < gpu.fans));
    return PUT(out, gpu.fan);
}

Result put_pci(PciInfo *out, const char *bus_id) {
    sscanf(bus_id, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    uint domain = out->domain & 0xFFFF, bus = out->bus & 0xFF, slot = out->device & 0xFF;
    snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", domain, bus, slot);
    return put_text(out->bus_id, sizeof out->bus_id, bus_id);
}

Result nvmlDeviceGetPciInfo_v3(Device device, PciInfo *out) {
    ON_DEVICE(out);
    *out = (PciInfo){.pci_id = (uint)gpu.pci_device_id, .subsystem_id = (uint)gpu.pci_subsystem_id};
    return put_pci(out, gpu.pci);
}

Result nvmlDeviceGetUtilizationRates(Device device, Utilization *out) {
    ON_DEVICE(out);
    return PUT(&out->gpu, gpu.util) ? NOT_SUPPORTED : PUT(&out->memory, gpu.mem_util);
}

Result nvmlDeviceGetBAR1MemoryInfo(Device device, Memory *out) {
    ON_DEVICE(out);
    *out = (Memory){(ull)gpu.bar1_total, (ull)(gpu.bar1_total - gpu.bar1_used), (ull)gpu.bar1_used};
    return gpu.bar1_total == ABSENT ? NOT_SUPPORTED : SUCCESS;
}

Result nvmlDeviceGetEccMode(Device device, uint *current, uint *pending) {
    ON_DEVICE(current && pending);
    return PUT(current, gpu.ecc) ? NOT_SUPPORTED : PUT(pending, gpu.ecc_pending == ABSENT ? gpu.ecc : gpu.ecc_pending);
}

Result nvmlDeviceGetGridLicensableFeatures_v4(Device device, LicensableFeatures *out) {
    ON_DEVICE(out);
    *out = (LicensableFeatures){.is_supported = gpu.licensed != ABSENT, .count = gpu.licensed != ABSENT};
    out->features[0].state = gpu.licensed == 1;
    return SUCCESS;
}

static Result memory_of(const Gpu *gpu, MemoryV2 *out) {
    *out = (MemoryV2){.version = VERSION(MemoryV2, 2)};
    if (!strcmp(gpu->unified, "total0"))
        return SUCCESS;
    if (strcmp(gpu->unified, "0") || gpu->memory_total == ABSENT)
        return NOT_SUPPORTED;
    out->total = (ull)gpu->memory_total;
    out->used = (ull)gpu->memory_used;
    out->reserved = (ull)gpu->memory_reserved;
    out->free = out->total - out->used - out->reserved;
    return SUCCESS;
}

Result nvmlDeviceGetMemoryInfo(Device device, Memory *out) {
    MemoryV2 memory;
    ON_DEVICE_OR_MIG(out);
    result = memory_of(&gpu, &memory);
    if (result == SUCCESS)
        *out = (Memory){memory.total, memory.free, memory.used + memory.reserved}; /* v1 counts both as used */
    return result;
}

/* ---- topology ---- */

Result nvmlDeviceGetTopologyCommonAncestor(Device device, Device other, uint *out) {
    ON_DEVICE(out && is_handle(other) && !other->is_mig);
    const Gpu *peer = gpu_of(other->uuid);
    if (!peer || is_lost(peer))
        return GPU_IS_LOST;
    *out = peer->index == gpu.index ? 0 : 50; /* the same board, or nothing but the system */
    for (int i = 0; i < now.entry_count; i++) {
        const Entry *entry = &now.entries[i];
        if (!strcmp(entry->keyword, "topology") && ((entry->gpu == gpu.index && entry->peer == peer->index)
                                                    || (entry->gpu == peer->index && entry->peer == gpu.index)))
            *out = (uint)entry->level;
    }
    return SUCCESS;
}

/* What a topology line says of both; else what the system can do: nothing. */
Result nvmlDeviceGetP2PStatus(Device device, Device other, uint index, uint *out) {
    ON_DEVICE(out && is_handle(other) && !other->is_mig && index < 5);
    const Gpu *peer = gpu_of(other->uuid);
    if (!peer || is_lost(peer))
        return GPU_IS_LOST;
    *out = 5; /* NVML_P2P_STATUS_NOT_SUPPORTED */
    for (int i = 0; i < now.entry_count; i++) {
        const Entry *entry = &now.entries[i];
        const long long said_of[] = {entry->read, entry->write, entry->nvlink, entry->atomics, entry->pci};
        int is_of_both = (entry->gpu == gpu.index && entry->peer == peer->index)
                         || (entry->gpu == peer->index && entry->peer == gpu.index);
        if (!strcmp(entry->keyword, "topology") && is_of_both && said_of[index] != ABSENT)
            *out = (uint)said_of[index];
    }
    return SUCCESS;
}

/* A list as Linux writes it, 0-15,64-79, as a mask of so many words; what does not fit is left out. */
static Result put_cpus(const char *list, uint words, unsigned long *out) {
    const uint bits = 8 * sizeof *out;
    if (!strcmp(list, "none"))
        return NOT_SUPPORTED;
    memset(out, 0, words * sizeof *out);
    for (char *at = (char *)list; *at; at += *at == ',') {
        unsigned long first = strtoul(at, &at, 10), last = *at == '-' ? strtoul(at + 1, &at, 10) : first;
        for (unsigned long cpu = first; cpu <= last && cpu / bits < words; cpu++)
            out[cpu / bits] |= 1UL << cpu % bits;
    }
    return SUCCESS;
}

Result nvmlDeviceGetCpuAffinity(Device device, uint words, unsigned long *out) {
    ON_DEVICE(words && out);
    return put_cpus(gpu.cpus, words, out);
}

Result nvmlDeviceGetCpuAffinityWithinScope(Device device, uint words, unsigned long *out, uint scope) {
    ON_DEVICE(words && out && scope < 2);
    return put_cpus(gpu.cpus, words, out);
}

/* ---- MIG ---- */

Result nvmlDeviceGetMigMode(Device device, uint *current, uint *pending) {
    ON_DEVICE(current && pending);
    return PUT(current, gpu.mig) ? NOT_SUPPORTED : PUT(pending, gpu.mig_pending == ABSENT ? gpu.mig : gpu.mig_pending);
}

Result nvmlDeviceGetMaxMigDeviceCount(Device device, uint *out) {
    ON_DEVICE(out);
    *out = gpu.mig == 1 ? (uint)gpu.mig_max : 0;
    return SUCCESS;
}

Result nvmlDeviceGetMigDeviceHandleByIndex(Device device, uint index, Device *out) {
    const Entry *mig;
    int position = 0;
    ON_DEVICE(out && (gpu.mig != 1 || index < gpu.mig_max));
    if (gpu.mig != 1)
        return NOT_SUPPORTED;
    while ((mig = next_entry("mig", gpu.index, &position)) && index)
        index--;
    return mig ? open_device(__func__, &gpu, mig, out) : NOT_FOUND;
}

Result nvmlDeviceIsMigDeviceHandle(Device device, uint *out) {
    ON_DEVICE_OR_MIG(out);
    *out = mig != NULL;
    return SUCCESS;
}

Result nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device device, Device *out) {
    ON_DEVICE_OR_MIG(out);
    return mig ? open_device(__func__, parent_of(mig), NULL, out) : INVALID_ARGUMENT;
}

#define MIG_GETTER(symbol, setting) \
    Result symbol(Device device, uint *out) { \
        ON_DEVICE_OR_MIG(out); \
        return mig ? PUT(out, mig->setting) : NOT_SUPPORTED; \
    }
MIG_GETTER(nvmlDeviceGetGpuInstanceId, gi)
MIG_GETTER(nvmlDeviceGetComputeInstanceId, ci)

Result nvmlDeviceGetAttributes_v2(Device device, Attributes *out) {
    uint compute = 0, slices = 0;
    ON_DEVICE_OR_MIG(out);
    if (!mig)
        return NOT_SUPPORTED;
    if (sscanf(mig->profile, "%uc.%ug", &compute, &slices) != 2 && sscanf(mig->profile, "%ug", &slices) == 1)
        compute = slices; /* 2g.35gb is all of its GPU instance, 1c.2g.35gb half of it */
    *out = (Attributes){
        (uint)mig->sms, (uint)mig->copy_engines, (uint)mig->decoders, (uint)mig->encoders, (uint)mig->jpegs,
        (uint)mig->ofas, slices, compute, (ull)mig->memory_total >> 20,
    };
    return SUCCESS;
}

/* ---- field values ---- */

static void answer_field(FieldValue *field, Gpu *gpu) {
    long long value = ABSENT;
    const Entry *link;
    int position = 0, has_links = next_entry("nvlink", gpu->index, &position) != NULL;
    int is_of_links = field->id >= 138 && field->id <= 141 && (!has_links || field->scope == UINT_MAX);
    position = 0;
    *field = (FieldValue){.id = field->id, .scope = field->scope, .type = UINT, .at_us = driver_us(), .latency_us = 3};
    for (size_t i = 0; i < LENGTH(fields); i++) {
        if (fields[i].id != field->id || field->id >= FIELD_ID_END || (fields[i].scope != field->scope && !is_of_links))
            continue;
        if (field->id >= 138 && field->id <= 141 && !is_of_links)
            continue; /* of one link, and it has lines: see below */
        value = *number_at(gpu, fields[i].offset);
        field->type = fields[i].type;
    }
    if (field->id < FIELD_ID_END && !link_of(gpu, field->scope, &link) && value == ABSENT)
        value = link_field(field->id, link, &field->type);
    if (field->id == 160) { /* of all links together */
        value = ecc_errors_of_links(gpu);
        field->type = ULL;
    }
    for (const Entry *entry; (entry = next_entry("field", gpu->index, &position));) {
        if (entry->id != field->id)
            continue;
        field->result = (Result)entry->number;
        field->type = *entry->type ? (uint)strtoul(entry->type, NULL, 0) : field->type;
        value = entry->value != ABSENT ? entry->value : value;
    }
    if (field->result == SUCCESS && value == ABSENT)
        field->result = NOT_SUPPORTED;
    if (field->result == SUCCESS)
        field->value = value_of(field->type, value);
}

Result nvmlDeviceGetFieldValues(Device device, int count, FieldValue *values) {
    ON_DEVICE(count >= 0 && values);
    for (int i = 0; i < count; i++)
        answer_field(&values[i], &gpu);
    count_up(&now.gpus[gpu.index]);
    return SUCCESS;
}

/* ---- processes ---- */

static Result processes_of(const Gpu *gpu, const Entry *mig, const char *type, uint *count, ProcessInfo *infos) {
    uint found = 0, room = *count;
    int position = 0;
    for (const Entry *entry; (entry = next_entry("process", gpu->index, &position));) {
        if (strcmp(entry->type, type) || (mig && (entry->gi != mig->gi || entry->ci != mig->ci)))
            continue;
        ull memory = entry->memory == ABSENT ? ULLONG_MAX : (ull)entry->memory; /* NVML_VALUE_NOT_AVAILABLE */
        if (found < room)
            infos[found] = (ProcessInfo){(uint)entry->pid, memory, (uint)entry->gi, (uint)entry->ci};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESS_GETTER(symbol, type) \
    Result symbol(Device device, uint *count, ProcessInfo *infos) { \
        ON_DEVICE_OR_MIG(count && (!*count || infos)); \
        return processes_of(&gpu, mig, type, count, infos); \
    }
PROCESS_GETTER(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
PROCESS_GETTER(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")
PROCESS_GETTER(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps")

#ifndef OLD_DRIVER /* later than the 470 branch */

GETTER(nvmlDeviceGetNumaNodeId, int, numa_node)
GETTER(nvmlDeviceGetModuleId, uint, module_id)
GETTER(nvmlDeviceGetC2cModeInfoV, uint, c2c)
PAIR_GETTER(nvmlDeviceGetGspFirmwareMode, gsp_enabled, gsp_default)
PAIR_GETTER(nvmlDeviceGetMinMaxFanSpeed, fan_min, fan_max)
PAIR_GETTER(nvmlDeviceGetJpgUtilization, jpg_util, sampling_period_us)
PAIR_GETTER(nvmlDeviceGetOfaUtilization, ofa_util, sampling_period_us)
GETTER(nvmlDeviceGetCurrentClocksEventReasons, ull, reasons)
GETTER(nvmlDeviceGetSupportedClocksEventReasons, ull, supported_reasons)
PROCESS_GETTER(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESS_GETTER(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESS_GETTER(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")

Result nvmlDeviceGetGspFirmwareVersion(Device device, char *out) {
    ON_DEVICE(out);
    return put_text(out, 64, *gpu.gsp_firmware ? gpu.gsp_firmware : said("driver", DRIVER));
}

Result nvmlDeviceGetPlatformInfo(Device device, PlatformInfoV2 *out) {
    ON_DEVICE(out);
    if (out->version != VERSION(PlatformInfoV2, 2))
        return VERSION_MISMATCH;
    if (!strcmp(gpu.chassis, "none"))
        return NOT_SUPPORTED;
    *out = (PlatformInfoV2){
        .version = out->version, .slot = (unsigned char)gpu.slot, .tray = (unsigned char)gpu.tray,
        .host = (unsigned char)gpu.host_id, .peer_type = (unsigned char)gpu.peer_type,
        .module = (unsigned char)gpu.module_id,
    };
    memcpy(out->chassis, gpu.chassis, sizeof out->chassis); /* all 16 may be digits: no 0 at the end */
    return SUCCESS;
}

Result nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2 *out) {
    ON_DEVICE_OR_MIG(out);
    return out->version == VERSION(MemoryV2, 2) ? memory_of(&gpu, out) : VERSION_MISMATCH;
}

Result nvmlDeviceGetTemperatureV(Device device, TemperatureV1 *out) {
    ON_DEVICE(out && !out->sensor);
    return out->version == VERSION(TemperatureV1, 1) ? PUT(&out->temperature, gpu.temp) : VERSION_MISMATCH;
}

Result nvmlDeviceGetMarginTemperature(Device device, MarginTemperatureV1 *out) {
    ON_DEVICE(out);
    return out->version == VERSION(MarginTemperatureV1, 1) ? PUT(&out->margin, gpu.temp_margin) : VERSION_MISMATCH;
}

#endif
