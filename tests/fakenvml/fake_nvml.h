/*
 * What the files of the stand-in share.  fake_nvml.c says what it is and how a scenario is written.
 *
 *   scenario.c    reads the scenario, keeps the machine as it is now, and is the way into every call
 *   fake_nvml.c   the calls that answer with what the machine is now
 *   health.c      the calls about errors, repairs, limits and the fabric
 *   links.c       the calls about NVLink, and the fields of one link
 *   activity.c    the calls that answer with what happened: samples, process utilization, GPM, events
 */
#ifndef FAKE_NVML_H
#define FAKE_NVML_H

#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>

#ifdef OLD_DRIVER
#define DRIVER "470.256.02"
#define CUDA "11040"
#define FIELD_ID_END 161
#else
#define DRIVER "580.95.05"
#define CUDA "13000"
#define FIELD_ID_END 308
#endif

#pragma GCC visibility push(hidden) /* only the functions that nvidia-ml-py looks up are seen outside */

/* ---- the interface, as nvidia-ml-py 13.615 declares it ---- */

typedef enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, TIMEOUT = 10, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, LIB_RM_VERSION_MISMATCH = 18,
    OUT_OF_MEMORY = 20, INSUFFICIENT_RESOURCES = 23, VERSION_MISMATCH = 25, UNKNOWN = 999,
} Result;

typedef unsigned int uint;
typedef unsigned long long ull;
typedef struct Handle *Device;

enum { DOUBLE, UINT, ULONG, ULL, SLL, INT, USHORT }; /* nvmlValueType_t */
typedef union { double d; uint ui; unsigned long ul; ull ull; long long sll; int si; unsigned short us; } Value;
typedef struct { uint id, scope; long long at_us, latency_us; uint type; Result result; Value value; } FieldValue;
typedef struct { uint gpu, memory; } Utilization;
typedef struct { ull total, free, used; } Memory;
typedef struct { uint version; ull total, reserved, free, used; } MemoryV2;
typedef struct { uint version, sensor; int temperature; } TemperatureV1;
typedef struct { uint version; int margin; } MarginTemperatureV1;
typedef struct { uint pid; ull memory; uint gpu_instance, compute_instance; } ProcessInfo;
typedef struct { char legacy[16]; uint domain, bus, device, pci_id, subsystem_id; char bus_id[32]; } PciInfo;
typedef struct {
    uint multiprocessors, copy_engines, decoders, encoders, jpegs, ofas, gpu_instance_slices, compute_instance_slices;
    ull memory_mib;
} Attributes;
typedef struct {
    uint version;
    ull aggregate_parity, aggregate_secded, aggregate_corrected, volatile_parity, volatile_secded, volatile_corrected;
    ull l2, sm, pcie, microcontroller, other;
    uint threshold_exceeded;
} SramErrors;
typedef struct { uint max, high, partial, low, none; } RemapHistogram;
typedef struct { uint version, channel_pending, tpc_pending; } RepairStatus;
typedef struct { uint version, value; } Flag; /* also an addressing mode, and whether memory is encrypted */
typedef struct { uint sessions, frames_per_second, latency_us; } CaptureStats;
typedef struct { unsigned char cluster[16]; Result status; uint clique, state; } FabricInfo;
typedef struct { uint version; unsigned char cluster[16]; Result status; uint clique, state, health_mask; } FabricInfoV2;
typedef struct {
    uint version; unsigned char cluster[16]; Result status; uint clique, state, health_mask; unsigned char health;
} FabricInfoV3;
typedef struct {
    uint version; char ib_guid[16], chassis[16]; unsigned char slot, tray, host, peer_type, module;
} PlatformInfoV2;
typedef struct { uint year; unsigned short month, day, hour, minute, second; unsigned char status; } LicenseExpiry;
typedef struct {
    uint code, state; char info[128], product[128]; uint enabled; LicenseExpiry expiry;
} LicensableFeature;
typedef struct { int is_supported; uint count; LicensableFeature features[3]; } LicensableFeatures;
typedef struct { ull at_us; Value value; } Sample;
typedef struct { uint pid; ull at_us; uint sm, memory, encoder, decoder; } ProcessSample;
typedef struct { ull at_us; uint pid, sm, memory, encoder, decoder, jpeg, ofa; } ProcessSampleV1;
typedef struct { uint version, count; ull last_seen_us; ProcessSampleV1 *samples; } ProcessSamplesV1;
typedef struct GpmSample GpmSample;
typedef struct { uint id; Result result; double value; const char *short_name, *long_name, *unit; } GpmMetric;
typedef struct { uint version, count; GpmSample *sample1, *sample2; GpmMetric metrics[]; } GpmMetrics;
typedef struct { uint version, is_supported; } GpmSupport;
typedef struct { Device device; ull type, data; uint gpu_instance, compute_instance; } EventData;
#define XID 0x8          /* nvmlEventTypeXidCriticalError */
#define SAMPLE_TYPES 10  /* NVML_SAMPLINGTYPE_COUNT */
#define GPM_METRICS 477  /* NVML_GPM_METRIC_MAX */

#define VERSION(structure, number) (sizeof(structure) | (uint)(number) << 24)
_Static_assert(VERSION(MemoryV2, 2) == 0x02000028, "nvmlMemory_v2");
_Static_assert(VERSION(TemperatureV1, 1) == 0x0100000C, "nvmlTemperature_v1");
_Static_assert(VERSION(MarginTemperatureV1, 1) == 0x01000008, "nvmlMarginTemperature_v1");
_Static_assert(VERSION(SramErrors, 1) == 0x01000068, "nvmlEccSramErrorStatus_v1");
_Static_assert(VERSION(RepairStatus, 1) == 0x0100000C && VERSION(Flag, 1) == 0x01000008, "pynvml's versions");
_Static_assert(VERSION(FabricInfoV2, 2) == 0x02000024 && VERSION(FabricInfoV3, 3) == 0x03000028, "nvmlGpuFabricInfo");
_Static_assert(VERSION(PlatformInfoV2, 2) == 0x0200002C, "nvmlPlatformInfo_v2");
_Static_assert(VERSION(ProcessSamplesV1, 1) == 0x01000018, "ProcessesUtilizationInfo_v1");
_Static_assert(sizeof(PciInfo) == 68 && sizeof(ProcessInfo) == 24 && sizeof(EventData) == 32, "pynvml's layouts");
_Static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value) == 32, "c_nvmlFieldValue_t");
_Static_assert(sizeof(Attributes) == 40 && sizeof(Sample) == 16, "c_nvmlDeviceAttributes, c_nvmlSample_t");
_Static_assert(sizeof(ProcessSample) == 32 && sizeof(ProcessSampleV1) == 40, "c_nvmlProcessUtilization...");
_Static_assert(sizeof(GpmMetric) == 40 && offsetof(GpmMetrics, metrics) == 24, "c_nvmlGpmMetricsGet_t");

/* ---- what a scenario can say ---- */

#define ABSENT LLONG_MIN
#define TEXT_SIZE 96

#define TEXTS(X) \
    X(uuid, "") X(name, "NVIDIA H200") X(pci, "") X(serial, "") X(vbios, "96.00.BF.00.01") X(unified, "0") \
    X(gsp_firmware, "") /* the driver's version */ X(inforom, "G520.0280.00.05") X(cpus, "0-31") \
    X(board_part, "699-2G530-0215-500") X(chassis, "none") X(cluster, "") /* 32 hex digits */

#define NUMBERS(X) \
    X(memory_total, 150754820096) X(memory_used, 0) X(memory_reserved, 643825664) /* bytes */ \
    X(bar1_total, 274877906944) X(bar1_used, 1048576) \
    X(util, 0) X(mem_util, 0) X(encoder_util, 0) X(decoder_util, 0) X(jpg_util, 0) X(ofa_util, 0) /* percent */ \
    X(sampling_period_us, 167000) \
    X(temp, 28) X(mem_temp, 34) X(temp_margin, 59) /* degrees C */ \
    X(temp_shutdown, 95) X(temp_slowdown, 92) X(temp_mem_max, 95) X(temp_gpu_max, 87) \
    X(temp_acoustic_min, ABSENT) X(temp_acoustic, ABSENT) X(temp_acoustic_max, ABSENT) X(temp_gps, ABSENT) \
    X(tlimit_shutdown, -8) X(tlimit_slowdown, -2) X(tlimit_mem_max, 0) X(tlimit_gpu_max, 0) \
    X(power_mw, 78000) X(power_instant_mw, 78000) X(power_limit_mw, 700000) X(power_default_limit_mw, 700000) \
    X(power_min_limit_mw, 200000) X(power_max_limit_mw, 700000) X(power_requested_limit_mw, 700000) \
    X(module_power_mw, ABSENT) X(module_power_instant_mw, ABSENT) X(module_power_limit_mw, ABSENT) \
    X(memory_power_mw, ABSENT) \
    X(clock_gr, 345) X(clock_sm, 345) X(clock_mem, 3201) X(clock_video, 765) /* MHz */ \
    X(max_clock_gr, 1980) X(max_clock_sm, 1980) X(max_clock_mem, 3201) X(max_clock_video, 1545) \
    X(pstate, 0) X(reasons, 0x1) X(supported_reasons, 0x1FF) \
    X(pcie_gen, 5) X(pcie_width, 16) X(max_pcie_gen, 5) X(max_pcie_width, 16) \
    X(pcie_tx_kb_per_s, 0) X(pcie_rx_kb_per_s, 0) \
    X(brand, 14) X(architecture, 9) X(cc_major, 9) X(cc_minor, 0) X(cores, 16896) X(minor_number, 0) \
    X(pci_device_id, 0x233510DE) X(pci_subsystem_id, 0x18BE10DE) X(numa_node, ABSENT) \
    X(fan, ABSENT) X(fans, 0) X(fan_min, ABSENT) X(fan_max, ABSENT) \
    X(ecc, 1) X(mig, ABSENT) X(mig_pending, ABSENT) X(mig_max, 7) X(persistence, 1) X(compute_mode, 0) \
    X(ecc_pending, ABSENT) X(gsp_enabled, 1) X(gsp_default, 1) X(display_attached, 0) X(display_active, 0) \
    X(accounting, 0) X(accounting_buffer, 4000) X(virtualization, 0) X(addressing, ABSENT) X(dram_encryption, ABSENT) \
    X(module_id, ABSENT) X(slot, 0) X(tray, 0) X(host_id, 0) X(peer_type, 0) X(licensed, ABSENT) \
    X(app_clock_gr, ABSENT) X(app_clock_mem, ABSENT) X(default_app_clock_gr, ABSENT) X(default_app_clock_mem, ABSENT) \
    X(sram_parity_volatile, 0) X(sram_parity_aggregate, 0) X(sram_secded_volatile, 0) X(sram_secded_aggregate, 0) \
    X(sram_l2, 0) X(sram_sm, 0) X(sram_pcie, 0) X(sram_microcontroller, 0) X(sram_other, 0) X(sram_exceeded, 0) \
    X(corrected_volatile_dram, 0) X(corrected_volatile_sram, 0) X(corrected_aggregate_dram, 0) \
    X(corrected_aggregate_sram, 0) X(uncorrected_volatile_dram, 0) X(uncorrected_volatile_sram, 0) \
    X(uncorrected_aggregate_dram, 0) X(uncorrected_aggregate_sram, 0) \
    X(spares_max, 640) X(spares_high, 0) X(spares_partial, 0) X(spares_low, 0) X(spares_none, 0) /* banks */ \
    X(channel_repair, 0) X(tpc_repair, 0) X(unrepairable, 0) \
    X(encoder_sessions, 0) X(encoder_fps, 0) X(encoder_latency_us, 0) \
    X(fbc_sessions, 0) X(fbc_fps, 0) X(fbc_latency_us, 0) \
    X(fabric_state, ABSENT) X(fabric_status, 0) X(fabric_clique, 0) X(fabric_health_mask, 0) X(fabric_health, 0) \
    X(protected_total, ABSENT) X(protected_used, 0) /* bytes */ X(edpp_percent, ABSENT) \
    X(c2c, ABSENT) X(c2c_links, ABSENT) X(c2c_interrupts, ABSENT) X(c2c_replays, ABSENT) X(c2c_replays_b2b, ABSENT) \
    X(remapped_correctable_inactive, ABSENT) X(remapped_uncorrectable_inactive, ABSENT) \
    X(retired_sbe, ABSENT) X(retired_dbe, ABSENT) X(retired_pending, ABSENT) \
    X(remapped_correctable, 0) X(remapped_uncorrectable, 0) X(remapped_pending, 0) X(remapped_failed, 0) \
    X(bank_remaps_active, ABSENT) X(bank_remaps_inactive, ABSENT) X(bank_remap_pending, ABSENT) \
    X(bank_spares_max, ABSENT) X(bank_spares_none, ABSENT) \
    X(recovery_action, 0) X(event_types, 0xF) X(nothing_new, NOT_FOUND) X(lost_after, ABSENT)

#define COUNTERS(X) \
    X(energy_mj, energy_step_mj) \
    X(throttle_sw_power_ns, throttle_sw_power_step_ns) X(throttle_sync_boost_ns, throttle_sync_boost_step_ns) \
    X(throttle_sw_thermal_ns, throttle_sw_thermal_step_ns) X(throttle_hw_thermal_ns, throttle_hw_thermal_step_ns) \
    X(throttle_hw_power_brake_ns, throttle_hw_power_brake_step_ns) \
    X(throttle_thermal_ns, throttle_thermal_step_ns) X(throttle_board_limit_ns, throttle_board_limit_step_ns) \
    X(throttle_low_utilization_ns, throttle_low_utilization_step_ns) \
    X(throttle_reliability_ns, throttle_reliability_step_ns) \
    X(throttle_application_clocks_ns, throttle_application_clocks_step_ns) \
    X(throttle_base_clocks_ns, throttle_base_clocks_step_ns) \
    X(pcie_tx, pcie_tx_step) X(pcie_rx, pcie_rx_step) /* bytes */ \
    X(nvlink_tx, nvlink_tx_step) X(nvlink_rx, nvlink_rx_step) /* KiB, all links */ \
    X(nvlink_raw_tx, nvlink_raw_tx_step) X(nvlink_raw_rx, nvlink_raw_rx_step) \
    X(pcie_replay, pcie_replay_step) \
    X(ecc_corrected_volatile, ecc_corrected_volatile_step) X(ecc_corrected_aggregate, ecc_corrected_aggregate_step) \
    X(ecc_uncorrected_volatile, ecc_uncorrected_volatile_step) \
    X(ecc_uncorrected_aggregate, ecc_uncorrected_aggregate_step)

#define TEXT_MEMBER(name, standard) char name[TEXT_SIZE];
#define NUMBER_MEMBER(name, standard) long long name;
#define COUNTER_MEMBER(name, step) long long name, step, name##_grown;
#define STANDARD(name, standard) .name = standard,
typedef struct {
    TEXTS(TEXT_MEMBER)
    NUMBERS(NUMBER_MEMBER)
    COUNTERS(COUNTER_MEMBER)
    long long gpm, gpm_streaming, gpm_no_permission_after; /* what `gpm` lines say */
    long long calls;     /* with a handle, while lost_after is set */
    long long gpm_calls; /* GPM samples taken, while gpm_no_permission_after is set */
    int index;
} Gpu;

/* Any line that is not a GPU's.  Which keyword has which of these stands in scenario.c. */
#define ENTRY_TEXTS(X) X(type, "") X(uuid, "") X(profile, "") X(remote, "none")
#define ENTRY_NUMBERS(X) \
    X(gpu, ABSENT) X(gi, UINT_MAX) X(ci, UINT_MAX) X(t_us, ABSENT) X(value, ABSENT) X(supported, ABSENT) \
    X(pid, 0) X(memory, ABSENT) X(sm, ABSENT) X(mem, 0) X(enc, 0) X(dec, 0) X(jpg, 0) X(ofa, 0) \
    X(code, 0) X(data, 0) X(value_type, UINT) X(stale, 0) \
    X(period_us, 100000) X(depth, 120) X(placeholders, 0) X(unsorted, 0) \
    X(streaming, ABSENT) X(no_permission_after, ABSENT) \
    X(memory_total, ABSENT) X(memory_used, 0) X(sms, 0) X(copy_engines, 0) X(decoders, 0) X(encoders, 0) \
    X(jpegs, 0) X(ofas, 0) \
    X(link, ABSENT) X(state, 1) X(version, ABSENT) X(speed_mb_per_s, ABSENT) X(remote_type, 0) \
    X(ecc_errors, ABSENT) X(replays, ABSENT) X(recoveries, ABSENT) X(crc_errors, ABSENT) \
    X(tx_packets, ABSENT) X(tx_bytes, ABSENT) X(rx_packets, ABSENT) X(rx_bytes, ABSENT) X(vl15_dropped, ABSENT) \
    X(malformed, ABSENT) X(overruns, ABSENT) X(rx_errors, ABSENT) X(rx_remote_errors, ABSENT) \
    X(tx_kib, ABSENT) X(rx_kib, ABSENT) X(raw_tx_kib, ABSENT) X(raw_rx_kib, ABSENT) X(remote_link, ABSENT) \
    X(crc_flit_errors, ABSENT) X(crc_data_errors, ABSENT) X(rx_general_errors, ABSENT) \
    X(integrity_errors, ABSENT) X(tx_discards, ABSENT) X(recovered, ABSENT) X(not_recovered, ABSENT) \
    X(effective_errors, ABSENT) X(effective_ber, ABSENT) X(symbol_errors, ABSENT) X(symbol_ber, ABSENT) \
    X(peer, ABSENT) X(level, ABSENT) X(read, ABSENT) X(write, ABSENT) X(nvlink, ABSENT) \
    X(atomics, ABSENT) X(pci, ABSENT) X(address, 0) X(cause, 0)
typedef struct {
    char keyword[TEXT_SIZE], name[TEXT_SIZE];
    long long id, number;
    ENTRY_TEXTS(TEXT_MEMBER)
    ENTRY_NUMBERS(NUMBER_MEMBER)
} Entry;

typedef struct { int entry; uint id; double value; } Item; /* one of many values of a line: GPM metrics, samples */

typedef struct {
    Gpu gpus[32];
    Entry entries[1024];
    Item items[4096];
    int gpu_count, entry_count, item_count;
} Scenario;

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* ---- the machine now, and the way into a call ---- */

#define HANDLES 128
struct Handle { char uuid[TEXT_SIZE]; int is_mig; };

/* One lock around all of this; it is not held while a call hangs or waits. */
extern pthread_mutex_t lock;
extern Scenario now;
extern struct Handle handles[HANDLES];
extern int init_count;

long long *number_at(void *structure, size_t offset);
Value value_of(uint type, long long number);
Gpu *gpu_of(const char *uuid);          /* the GPU of that UUID, or NULL */
Gpu *parent_of(const Entry *mig);
const Entry *mig_of(const char *uuid);  /* the `mig` line of that UUID, or NULL */
Device handle_of(const char *uuid, int is_mig);
int is_handle(Device device);
int is_lost(const Gpu *gpu);
void count_up(Gpu *gpu);                 /* each counter by its step */
const Entry *next_entry(const char *keyword, long long index, int *position);
const char *said(const char *keyword, const char *standard);
long long monotonic_us(void);
long long driver_us(void);              /* the driver's own clock */
void pause_ms(long milliseconds);       /* called with the lock; others have it meanwhile */
void refresh(void);
void hang(const char *function, long long index);
Result driver_trouble(void);
Result scripted(const char *function, long long index);
Result enter(const char *function, Device device, Gpu *gpu, const Entry **mig);
pthread_mutex_t *locked(void);
void unlock(pthread_mutex_t **held);

Result link_of(const Gpu *gpu, uint link, const Entry **out); /* in links.c, as are the next two */
long long link_field(uint id, const Entry *link, uint *type);
long long ecc_errors_of_links(const Gpu *gpu);
Result put_pci(PciInfo *out, const char *bus_id);
void deliver(const Entry *event);       /* in activity.c, as is the next */
void close_event_sets(void);

#define LOCKED __attribute__((cleanup(unlock))) pthread_mutex_t *held = locked()
#define ENTER(valid, ...) \
    Result result = enter(__func__, __VA_ARGS__); \
    if (result == SUCCESS && !(valid)) \
        result = INVALID_ARGUMENT; \
    if (result != SUCCESS) \
        return result
#define ON_MACHINE(valid) \
    LOCKED; \
    ENTER(valid, NULL, NULL, NULL)
#define ON_DEVICE(valid) \
    LOCKED; \
    Gpu gpu; \
    ENTER(valid, device, &gpu, NULL)
#define ON_DEVICE_OR_MIG(valid) /* `mig` is the handle's line, NULL for a whole GPU */ \
    LOCKED; \
    Gpu gpu; \
    const Entry *mig = NULL; \
    ENTER(valid, device, &gpu, &mig)
#define PUT(out, value) ((value) == ABSENT ? NOT_SUPPORTED : (*(out) = (value), SUCCESS))
#define GETTER(symbol, type, setting) \
    Result symbol(Device device, type *out) { \
        ON_DEVICE(out); \
        return PUT(out, gpu.setting); \
    }
#define PAIR_GETTER(symbol, setting, other_setting) \
    Result symbol(Device device, uint *out, uint *other) { \
        ON_DEVICE(out && other); \
        return PUT(out, gpu.setting) ? NOT_SUPPORTED : PUT(other, gpu.other_setting); \
    }
#define NTH_GETTER(symbol, ...) /* one of several settings, by its number in NVML's enumeration */ \
    Result symbol(Device device, uint nth, uint *out) { \
        ON_DEVICE(out); \
        const long long values[] = {__VA_ARGS__}; \
        return nth < LENGTH(values) ? PUT(out, values[nth]) : INVALID_ARGUMENT; \
    }

#pragma GCC visibility pop
#endif
