/*
 * A stand-in for NVIDIA's libnvidia-ml.so.1: the machine is a text file, so the real nvidia-ml-py (struct layouts,
 * version words, error classes and all) runs in tests without a GPU.  Built by plugin.py beside this file.
 *
 * FAKE_NVML_SCENARIO names the scenario file.  It is looked at (one stat) on every call and read again when it changed,
 * so a test can change the machine under a running collector; replace the file atomically.  Without the variable the
 * machine is two idle H200.  A line that makes no sense is told on stderr and every call returns UNKNOWN (999) until
 * the file is right: a typo must not look like a quiet machine.
 *
 *   # a comment; values are decimal or 0x hex; quotes hold blanks together
 *   driver 580.95.05
 *   cuda 13000
 *   gpu 0 uuid=GPU-1b name="NVIDIA H200" util=37 power_mw=312345 energy_mj=1000 energy_step_mj=250
 *   gpu 1 fan=none                # lines of one GPU add up; `none` makes a value NOT_SUPPORTED
 *   gpu 1 lost_after=5            # GPU_IS_LOST from the 6th call with its handle on; a changed number counts anew
 *   gpu 2 unified=1               # memory info NOT_SUPPORTED, as on GB10; unified=total0: SUCCESS and total 0
 *   process gpu=0 pid=123 memory=1048576 type=compute   # or graphics, mps; memory=none; gi= ci= for MIG
 *   xid gpu=0 code=79             # one event for whoever is registered when the line is first seen
 *   field 82 3                    # this field id answers this code; gpu=N limits it to one GPU
 *   field 297 0 value=12 type=1   # or this value, for ids that `fields` below lacks or has of another type
 *   fail nvmlInit 9               # a function answers this code; gpu=N as above; `*` is every function
 *   missing nvmlDeviceGetTemperatureV   # the same with FUNCTION_NOT_FOUND: a symbol cannot be taken back
 *   hang nvmlDeviceGetUtilizationRates 30000 gpu=0      # for so many ms, or until the line is gone
 *
 * A function is named as pynvml calls it; without its _vN the name stands for all its versions.  What can be said of a
 * GPU are the lists TEXTS, NUMBERS and COUNTERS below, where their defaults are too.  A counter reads its value plus
 * its step for every nvmlDeviceGetFieldValues call that was answered before; it goes on across a rewritten file unless
 * its own value was changed there, which is how to reset it.  GPUs are numbered from 0 without gaps.  A handle stands
 * for a UUID: one that left the file answers GPU_IS_LOST, one that joined it is there at once.
 *
 * -DOLD_DRIVER builds a driver of the 470 branch: later symbols are not exported and later field ids not known.
 * Seen on no hardware: which value type the real driver gives each field.  A test that depends on one sets it.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#ifdef OLD_DRIVER
#define DRIVER "470.256.02"
#define CUDA "11040"
#define FIELD_ID_END 161
#else
#define DRIVER "580.95.05"
#define CUDA "13000"
#define FIELD_ID_END 308
#endif

/* ---- the interface, as nvidia-ml-py 13.615 declares it ---- */

typedef enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15, INSUFFICIENT_RESOURCES = 23, VERSION_MISMATCH = 25,
    UNKNOWN = 999,
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
typedef struct { Device device; ull type, data; uint gpu_instance, compute_instance; } EventData;
#define XID 0x8ULL /* nvmlEventTypeXidCriticalError */

#define VERSION(structure, number) (sizeof(structure) | (uint)(number) << 24)
_Static_assert(VERSION(MemoryV2, 2) == 0x02000028, "nvmlMemory_v2");
_Static_assert(VERSION(TemperatureV1, 1) == 0x0100000C, "nvmlTemperature_v1");
_Static_assert(VERSION(MarginTemperatureV1, 1) == 0x01000008, "nvmlMarginTemperature_v1");
_Static_assert(sizeof(PciInfo) == 68 && sizeof(ProcessInfo) == 24 && sizeof(EventData) == 32, "pynvml's layouts");
_Static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value) == 32, "c_nvmlFieldValue_t");

/* ---- what a scenario can say ---- */

#define ABSENT LLONG_MIN
#define TEXT_SIZE 96

#define TEXTS(X) X(uuid, "") X(name, "NVIDIA H200") X(pci, "") X(serial, "") X(vbios, "96.00.BF.00.01") X(unified, "0")

#define NUMBERS(X) \
    X(memory_total, 150754820096) X(memory_used, 0) X(memory_reserved, 643825664) /* bytes */ \
    X(bar1_total, 274877906944) X(bar1_used, 1048576) \
    X(util, 0) X(mem_util, 0) X(encoder_util, 0) X(decoder_util, 0) X(jpg_util, 0) X(ofa_util, 0) /* percent */ \
    X(sampling_period_us, 167000) \
    X(temp, 28) X(mem_temp, 34) X(temp_margin, 59) /* degrees C */ \
    X(temp_shutdown, 95) X(temp_slowdown, 92) X(temp_mem_max, 95) X(temp_gpu_max, 87) \
    X(tlimit_shutdown, -8) X(tlimit_slowdown, -2) X(tlimit_mem_max, 0) X(tlimit_gpu_max, 0) \
    X(power_mw, 78000) X(power_instant_mw, 78000) X(power_limit_mw, 700000) X(power_default_limit_mw, 700000) \
    X(power_min_limit_mw, 200000) X(power_max_limit_mw, 700000) \
    X(clock_gr, 345) X(clock_sm, 345) X(clock_mem, 3201) X(clock_video, 765) /* MHz */ \
    X(max_clock_gr, 1980) X(max_clock_sm, 1980) X(max_clock_mem, 3201) X(max_clock_video, 1545) \
    X(pstate, 0) X(reasons, 0x1) X(supported_reasons, 0x1FF) \
    X(pcie_gen, 5) X(pcie_width, 16) X(max_pcie_gen, 5) X(max_pcie_width, 16) \
    X(brand, 14) X(architecture, 9) X(cc_major, 9) X(cc_minor, 0) X(cores, 16896) X(minor_number, 0) \
    X(pci_device_id, 0x233510DE) X(pci_subsystem_id, 0x18BE10DE) \
    X(fan, ABSENT) X(fans, 0) X(ecc, 1) X(mig, ABSENT) X(persistence, 1) X(compute_mode, 0) \
    X(retired_sbe, ABSENT) X(retired_dbe, ABSENT) X(retired_pending, ABSENT) \
    X(remapped_correctable, 0) X(remapped_uncorrectable, 0) X(remapped_pending, 0) X(remapped_failed, 0) \
    X(recovery_action, 0) X(event_types, 0xF) X(lost_after, ABSENT)

#define COUNTERS(X) \
    X(energy_mj, energy_step_mj) \
    X(throttle_sw_power_ns, throttle_sw_power_step_ns) X(throttle_sync_boost_ns, throttle_sync_boost_step_ns) \
    X(throttle_sw_thermal_ns, throttle_sw_thermal_step_ns) X(throttle_hw_thermal_ns, throttle_hw_thermal_step_ns) \
    X(throttle_hw_power_brake_ns, throttle_hw_power_brake_step_ns) \
    X(throttle_thermal_ns, throttle_thermal_step_ns) X(throttle_board_limit_ns, throttle_board_limit_step_ns) \
    X(throttle_low_utilization_ns, throttle_low_utilization_step_ns) \
    X(throttle_reliability_ns, throttle_reliability_step_ns) \
    X(pcie_tx, pcie_tx_step) X(pcie_rx, pcie_rx_step) /* bytes */ \
    X(nvlink_tx, nvlink_tx_step) X(nvlink_rx, nvlink_rx_step) /* KiB, all links */ \
    X(pcie_replay, pcie_replay_step) \
    X(ecc_corrected_volatile, ecc_corrected_volatile_step) X(ecc_corrected_aggregate, ecc_corrected_aggregate_step) \
    X(ecc_uncorrected_volatile, ecc_uncorrected_volatile_step) \
    X(ecc_uncorrected_aggregate, ecc_uncorrected_aggregate_step)

#define TEXT_MEMBER(name, standard) char name[TEXT_SIZE];
#define NUMBER_MEMBER(name, standard) long long name;
#define COUNTER_MEMBER(name, step) long long name, step, name##_grown;
typedef struct {
    TEXTS(TEXT_MEMBER)
    NUMBERS(NUMBER_MEMBER)
    COUNTERS(COUNTER_MEMBER)
    long long calls; /* with a handle, while lost_after is set */
    int index;
} Gpu;

#define ENTRY_NUMBERS(X) \
    X(gpu, ABSENT) X(pid, 0) X(memory, ABSENT) X(gi, UINT_MAX) X(ci, UINT_MAX) X(code, 0) X(value, ABSENT)
typedef struct { /* any line that is not a GPU's */
    char keyword[TEXT_SIZE], name[TEXT_SIZE], type[TEXT_SIZE];
    long long id, number;
    ENTRY_NUMBERS(NUMBER_MEMBER)
} Entry;

typedef struct { const char *name; size_t offset; enum { TEXT, NUMBER } kind; } Setting;
#define TEXT_SETTING(name, standard) {#name, offsetof(Gpu, name), TEXT},
#define NUMBER_SETTING(name, standard) {#name, offsetof(Gpu, name), NUMBER},
#define COUNTER_SETTINGS(name, step) NUMBER_SETTING(name, 0) NUMBER_SETTING(step, 0)
#define ENTRY_SETTING(name, standard) {#name, offsetof(Entry, name), NUMBER},
static const Setting gpu_settings[] = {TEXTS(TEXT_SETTING) NUMBERS(NUMBER_SETTING) COUNTERS(COUNTER_SETTINGS) {0}};
static const Setting entry_settings[] = {ENTRY_NUMBERS(ENTRY_SETTING) {"type", offsetof(Entry, type), TEXT}, {0}};

static const struct { const char *word; int words; } keywords[] = {
    {"driver", 2}, {"cuda", 2}, {"gpu", 2},     {"process", 1}, {"xid", 1},
    {"fail", 3},   {"hang", 3}, {"missing", 2}, {"field", 3},
};

#define COUNTER(name, step) {offsetof(Gpu, name), offsetof(Gpu, step), offsetof(Gpu, name##_grown)},
static const struct { size_t start, step, grown; } counters[] = {COUNTERS(COUNTER)};

#define FIELD(id, type, name) {id, type, offsetof(Gpu, name)}
static const struct { uint id, type; size_t offset; } fields[] = {
    FIELD(3, ULL, ecc_corrected_volatile), FIELD(4, ULL, ecc_uncorrected_volatile),
    FIELD(5, ULL, ecc_corrected_aggregate), FIELD(6, ULL, ecc_uncorrected_aggregate),
    FIELD(29, ULL, retired_sbe), FIELD(30, ULL, retired_dbe), FIELD(31, ULL, retired_pending),
    FIELD(74, ULL, throttle_sw_power_ns), FIELD(75, ULL, throttle_thermal_ns),
    FIELD(76, ULL, throttle_sync_boost_ns), FIELD(77, ULL, throttle_board_limit_ns),
    FIELD(78, ULL, throttle_low_utilization_ns), FIELD(79, ULL, throttle_reliability_ns),
    FIELD(82, UINT, mem_temp), FIELD(83, ULL, energy_mj), FIELD(94, UINT, pcie_replay),
    FIELD(138, ULL, nvlink_tx), FIELD(139, ULL, nvlink_rx),
    FIELD(142, UINT, remapped_correctable), FIELD(143, UINT, remapped_uncorrectable),
    FIELD(144, UINT, remapped_pending), FIELD(145, UINT, remapped_failed),
    FIELD(185, UINT, power_mw), FIELD(186, UINT, power_instant_mw),
    FIELD(187, UINT, power_min_limit_mw), FIELD(188, UINT, power_max_limit_mw),
    FIELD(189, UINT, power_default_limit_mw), FIELD(190, UINT, power_limit_mw),
    FIELD(193, INT, tlimit_shutdown), FIELD(194, INT, tlimit_slowdown),
    FIELD(195, INT, tlimit_mem_max), FIELD(196, INT, tlimit_gpu_max),
    FIELD(197, ULL, pcie_tx), FIELD(198, ULL, pcie_rx), FIELD(230, UINT, recovery_action),
    FIELD(269, ULL, throttle_sw_thermal_ns), FIELD(270, ULL, throttle_hw_thermal_ns),
    FIELD(271, ULL, throttle_hw_power_brake_ns),
};

#define LENGTH(array) (sizeof(array) / sizeof *(array))

typedef struct { Gpu gpus[32]; Entry entries[256]; int gpu_count, entry_count; } Scenario;
struct Handle { char uuid[TEXT_SIZE]; };
typedef struct EventSet {
    int open, pending_count;
    ull types[64]; /* what is registered, by handle */
    EventData pending[64];
} EventSet;

/* One lock around all of this; it is not held while a call hangs or waits. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Scenario now, next;
static struct Handle handles[64];
static int handle_count, init_count, broken;
static EventSet event_sets[16];

/* ---- reading a scenario ---- */

static char complaint[3 * TEXT_SIZE]; /* about the line being read; the first one stands */

static void complain(const char *what, const char *word) {
    if (!*complaint)
        snprintf(complaint, sizeof complaint, "%s%s%s", what, *word ? ": " : "", word);
}

/* Cuts the next word out of the line, in place; quotes hold blanks together and vanish. */
static char *next_word(char **cursor) {
    char *from = *cursor + strspn(*cursor, " \t\r\n"), *word = from, *to = from;
    if (!*from || *from == '#')
        return NULL;
    for (int quoted = 0; *from && (quoted || !strchr(" \t\r\n", *from)); from++) {
        if (*from == '"')
            quoted = !quoted;
        else
            *to++ = *from;
    }
    *cursor = *from ? from + 1 : from;
    *to = '\0';
    return word;
}

static long long number(const char *text) {
    char *end;
    long long value = strtoll(text, &end, 0);
    if (!strcmp(text, "none"))
        return ABSENT;
    if (end == text || *end)
        complain("not a number", text);
    return value;
}

static long long *number_at(void *structure, size_t offset) { return (long long *)((char *)structure + offset); }

static void set(const Setting *setting, void *structure, const char *key, const char *value) {
    while (setting->name && strcmp(setting->name, key))
        setting++;
    if (!setting->name)
        complain("no such setting", key);
    else if (setting->kind == NUMBER)
        *number_at(structure, setting->offset) = number(value);
    else
        snprintf((char *)structure + setting->offset, TEXT_SIZE, "%s", value);
}

static Gpu new_gpu(int index) {
#define STANDARD(name, standard) .name = standard,
    Gpu gpu = {TEXTS(STANDARD) NUMBERS(STANDARD).index = index};
    snprintf(gpu.uuid, sizeof gpu.uuid, "GPU-00000000-0000-0000-0000-%012d", index);
    snprintf(gpu.pci, sizeof gpu.pci, "00000000:%02X:00.0", 0x1B + index);
    snprintf(gpu.serial, sizeof gpu.serial, "16510240000%02d", index);
    gpu.minor_number = index;
    return gpu;
}

static Gpu *gpu_numbered(Scenario *scenario, const char *text) {
    long long index = number(text);
    if (index < 0 || index > scenario->gpu_count || index >= (int)LENGTH(scenario->gpus)) {
        complain("GPUs are numbered from 0 without gaps", text);
        return &scenario->gpus[0];
    }
    if (index == scenario->gpu_count)
        scenario->gpus[scenario->gpu_count++] = new_gpu((int)index);
    return &scenario->gpus[index];
}

static void check(Entry *entry) {
    int is_process = !strcmp(entry->keyword, "process"), is_field = !strcmp(entry->keyword, "field");
    if (is_process && strcmp(entry->type, "compute") && strcmp(entry->type, "graphics") && strcmp(entry->type, "mps"))
        complain("no such type of process", entry->type);
    if ((is_process || !strcmp(entry->keyword, "xid")) && entry->gpu == ABSENT)
        complain("of which gpu", entry->keyword);
    entry->id = is_field ? number(entry->name) : 0;
    if (is_field && *entry->type)
        number(entry->type);
}

static void read_line(Scenario *scenario, char *text) {
    Entry entry = {ENTRY_NUMBERS(STANDARD).number = 0};
    const char *words[3] = {"", "", "0"};
    int count = 0;
    size_t keyword = 0;
    for (char *word; (word = next_word(&text));) {
        char *value = strchr(word, '=');
        if (value)
            *value++ = '\0';
        if (!value && count < (int)LENGTH(words))
            words[count++] = word;
        else if (!value)
            complain("one word too many", word);
        else if (!count)
            complain("no line begins with", word);
        else if (!strcmp(words[0], "gpu"))
            set(gpu_settings, gpu_numbered(scenario, words[1]), word, value);
        else
            set(entry_settings, &entry, word, value);
    }
    while (keyword < LENGTH(keywords) && strcmp(keywords[keyword].word, words[0]))
        keyword++;
    if (count && (keyword == LENGTH(keywords) || keywords[keyword].words != count))
        complain("no such line, or not with so many words", words[0]);
    if (!strcmp(words[0], "gpu")) {
        gpu_numbered(scenario, words[1]);
    } else if (count && scenario->entry_count == (int)LENGTH(scenario->entries)) {
        complain("one line too many", words[0]);
    } else if (count) {
        snprintf(entry.keyword, sizeof entry.keyword, "%s", words[0]);
        snprintf(entry.name, sizeof entry.name, "%s", words[1]);
        entry.number = number(words[2]);
        check(&entry);
        scenario->entries[scenario->entry_count++] = entry;
    }
}

static int read_scenario(const char *path, Scenario *scenario) {
    char text[8192];
    int line = 0;
    FILE *file = path ? fopen(path, "r") : NULL;
    memset(scenario, 0, sizeof *scenario);
    *complaint = '\0';
    if (!path) {
        gpu_numbered(scenario, "0");
        gpu_numbered(scenario, "1");
    } else if (!file) {
        complain("no such file", "");
    }
    for (; file && !*complaint && fgets(text, sizeof text, file); line++)
        read_line(scenario, text);
    for (const Entry *entry = scenario->entries; entry < scenario->entries + scenario->entry_count; entry++)
        if (entry->gpu != ABSENT && (entry->gpu < 0 || entry->gpu >= scenario->gpu_count))
            complain("no such GPU", entry->keyword);
    if (file)
        fclose(file);
    if (*complaint)
        fprintf(stderr, "fake_nvml: %s:%d: %s\n", path, line, complaint);
    return !*complaint;
}

/* ---- the machine now ---- */

static Gpu *gpu_of(Scenario *scenario, const char *uuid) {
    for (int i = 0; i < scenario->gpu_count; i++)
        if (!strcmp(scenario->gpus[i].uuid, uuid))
            return &scenario->gpus[i];
    return NULL;
}

static Device handle_of(const char *uuid) {
    for (int i = 0; i < handle_count; i++)
        if (!strcmp(handles[i].uuid, uuid))
            return &handles[i];
    if (handle_count == LENGTH(handles))
        return NULL;
    snprintf(handles[handle_count].uuid, TEXT_SIZE, "%s", uuid);
    return &handles[handle_count++];
}

/* The next entry of that keyword from *position on that speaks of this GPU (or of all, saying nothing of GPUs). */
static const Entry *next_entry(const Scenario *scenario, const char *keyword, long long index, int *position) {
    while (*position < scenario->entry_count) {
        const Entry *entry = &scenario->entries[(*position)++];
        if (!strcmp(entry->keyword, keyword) && (entry->gpu == ABSENT || entry->gpu == index))
            return entry;
    }
    return NULL;
}

/* The line that says this of this function; index ABSENT for a call that concerns no GPU. */
static const Entry *rule(const char *keyword, const char *function, long long index) {
    int position = 0;
    for (const Entry *entry; (entry = next_entry(&now, keyword, index, &position));) {
        size_t length = strlen(entry->name);
        if (!strcmp(entry->name, "*"))
            return entry;
        if (strncmp(function, entry->name, length))
            continue;
        const char *rest = function + length;
        if (!*rest || !strncmp(rest, "_v", 2) || !strcmp(rest, "WithFlags"))
            return entry;
    }
    return NULL;
}

/* What the file says of the machine as a whole. */
static const char *said(const char *keyword, const char *standard) {
    int position = 0;
    const Entry *entry = next_entry(&now, keyword, ABSENT, &position);
    return entry ? entry->name : standard;
}

/* What has counted up goes on counting under the new file, unless the file moved its start. */
static void carry_over(Gpu *new, Gpu *old) {
    for (size_t i = 0; i < LENGTH(counters); i++)
        if (*number_at(new, counters[i].start) == *number_at(old, counters[i].start))
            *number_at(new, counters[i].grown) = *number_at(old, counters[i].grown);
    if (new->lost_after == old->lost_after)
        new->calls = old->calls;
}

/* Only who is registered now hears of it: with the real driver, too, earlier events are lost. */
static void deliver(const Entry *xid) {
    Device device = xid->gpu >= 0 && xid->gpu < now.gpu_count ? handle_of(now.gpus[xid->gpu].uuid) : NULL;
    for (size_t i = 0; device && i < LENGTH(event_sets); i++) {
        EventSet *events = &event_sets[i];
        int room = events->pending_count < (int)LENGTH(events->pending);
        if (events->open && room && events->types[device - handles] & XID)
            events->pending[events->pending_count++] = (EventData){device, XID, (ull)xid->code, UINT_MAX, UINT_MAX};
    }
}

/* The n-th xid line of a scenario. */
static const Entry *nth_xid(const Scenario *scenario, int n) {
    for (int i = 0; i < scenario->entry_count; i++)
        if (!strcmp(scenario->entries[i].keyword, "xid") && n-- == 0)
            return &scenario->entries[i];
    return NULL;
}

static int same_event(const Entry *a, const Entry *b) { return a->gpu == b->gpu && a->code == b->code; }

static void refresh(void) {
    static struct stat seen;
    static char seen_path[4096] = "?";
    struct stat found = {0};
    const char *path = getenv("FAKE_NVML_SCENARIO");
    const Entry *old, *new;
    int known = 0;
    if (path)
        stat(path, &found);
    if (!strcmp(seen_path, path ? path : "") && found.st_ino == seen.st_ino && found.st_size == seen.st_size
        && found.st_mtim.tv_sec == seen.st_mtim.tv_sec && found.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    seen = found;
    snprintf(seen_path, sizeof seen_path, "%s", path ? path : "");
    broken = !read_scenario(path, &next);
    if (broken)
        return;
    for (int i = 0; i < next.gpu_count; i++) {
        Gpu *before = gpu_of(&now, next.gpus[i].uuid);
        if (before)
            carry_over(&next.gpus[i], before);
    }
    while ((old = nth_xid(&now, known)) && (new = nth_xid(&next, known)) && same_event(old, new))
        known++; /* the lines that both files begin with are old news */
    now = next;
    while ((new = nth_xid(&now, known++)))
        deliver(new);
}

static long long monotonic_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

/* Called with the lock; others have it meanwhile. */
static void pause_ms(long milliseconds) {
    pthread_mutex_unlock(&lock);
    nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
    pthread_mutex_lock(&lock);
    refresh();
}

static void hang(const char *function, long long index) {
    const Entry *entry;
    long long begin_us = monotonic_us();
    while ((entry = rule("hang", function, index)) && monotonic_us() - begin_us < entry->number * 1000)
        pause_ms(2);
}

static Result scripted(const char *function, long long index) {
    const Entry *failure = rule("fail", function, index);
    if (broken)
        return UNKNOWN;
    return rule("missing", function, index) ? FUNCTION_NOT_FOUND : failure ? (Result)failure->number : SUCCESS;
}

static int is_handle(Device device) { return device >= handles && device < handles + handle_count; }

static int is_lost(const Gpu *gpu) { return gpu->lost_after != ABSENT && gpu->calls > gpu->lost_after; }

/* The way into every function but nvmlInit: what the scenario makes of this call and, for a call on a device, a copy
 * of its GPU as it is now, its counters counted up. */
static Result enter(const char *function, Device device, Gpu *gpu) {
    refresh();
    Gpu *found = gpu && is_handle(device) ? gpu_of(&now, device->uuid) : NULL;
    hang(function, found ? found->index : ABSENT);
    if (!init_count)
        return UNINITIALIZED;
    if (!gpu)
        return scripted(function, ABSENT);
    if (!is_handle(device))
        return INVALID_ARGUMENT;
    found = gpu_of(&now, device->uuid); /* again: the machine may have changed while the call hung */
    if (found)
        found->calls += found->lost_after != ABSENT;
    if (!found || is_lost(found))
        return GPU_IS_LOST;
    *gpu = *found;
    for (size_t i = 0; i < LENGTH(counters); i++)
        if (*number_at(gpu, counters[i].start) != ABSENT)
            *number_at(gpu, counters[i].start) += *number_at(gpu, counters[i].grown);
    return scripted(function, found->index);
}

static pthread_mutex_t *locked(void) {
    pthread_mutex_lock(&lock);
    return &lock;
}

static void unlock(pthread_mutex_t **held) { pthread_mutex_unlock(*held); }

#define LOCKED __attribute__((cleanup(unlock))) pthread_mutex_t *held = locked()
#define ON_MACHINE(valid) \
    LOCKED; \
    Result result = enter(__func__, NULL, NULL); \
    if (result == SUCCESS && !(valid)) \
        result = INVALID_ARGUMENT; \
    if (result != SUCCESS) \
        return result
#define ON_DEVICE(valid) \
    LOCKED; \
    Gpu gpu; \
    Result result = enter(__func__, device, &gpu); \
    if (result == SUCCESS && !(valid)) \
        result = INVALID_ARGUMENT; \
    if (result != SUCCESS) \
        return result
#define PUT(out, value) ((value) == ABSENT ? NOT_SUPPORTED : (*(out) = (value), SUCCESS))

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
    Result result = scripted(__func__, ABSENT);
    init_count += result == SUCCESS;
    return result;
}

Result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

Result nvmlShutdown(void) {
    ON_MACHINE(1);
    if (--init_count == 0)
        memset(event_sets, 0, sizeof event_sets);
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

static Result open_device(const char *function, Gpu *gpu, Device *out) {
    if (!gpu)
        return NOT_FOUND;
    if (is_lost(gpu))
        return GPU_IS_LOST;
    *out = handle_of(gpu->uuid);
    return *out ? scripted(function, gpu->index) : INSUFFICIENT_RESOURCES;
}

Result nvmlDeviceGetHandleByIndex_v2(uint index, Device *out) {
    ON_MACHINE(out && index < (uint)now.gpu_count);
    return open_device(__func__, &now.gpus[index], out);
}

Result nvmlDeviceGetHandleByUUID(const char *uuid, Device *out) {
    ON_MACHINE(uuid && out);
    return open_device(__func__, gpu_of(&now, uuid), out);
}

Result nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, Device *out) {
    uint asked[3] = {0}, own[3] = {0};
    Gpu *found = NULL;
    ON_MACHINE(bus_id && out && sscanf(bus_id, "%x:%x:%x", &asked[0], &asked[1], &asked[2]) == 3);
    for (int i = 0; i < now.gpu_count && !found; i++)
        if (sscanf(now.gpus[i].pci, "%x:%x:%x", &own[0], &own[1], &own[2]) == 3 && !memcmp(own, asked, sizeof own))
            found = &now.gpus[i];
    return open_device(__func__, found, out);
}

#define TEXT_GETTER(symbol, setting) \
    Result symbol(Device device, char *out, uint size) { \
        ON_DEVICE(out); \
        return put_text(out, size, gpu.setting); \
    }
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

TEXT_GETTER(nvmlDeviceGetName, name)
TEXT_GETTER(nvmlDeviceGetUUID, uuid)
TEXT_GETTER(nvmlDeviceGetSerial, serial)
TEXT_GETTER(nvmlDeviceGetVbiosVersion, vbios)
GETTER(nvmlDeviceGetIndex, uint, index)
GETTER(nvmlDeviceGetBrand, uint, brand)
GETTER(nvmlDeviceGetArchitecture, uint, architecture)
PAIR_GETTER(nvmlDeviceGetCudaComputeCapability, cc_major, cc_minor)
GETTER(nvmlDeviceGetNumGpuCores, uint, cores)
GETTER(nvmlDeviceGetMinorNumber, uint, minor_number)
PAIR_GETTER(nvmlDeviceGetEncoderUtilization, encoder_util, sampling_period_us)
PAIR_GETTER(nvmlDeviceGetDecoderUtilization, decoder_util, sampling_period_us)
NTH_GETTER(nvmlDeviceGetTemperature, gpu.temp)
NTH_GETTER(nvmlDeviceGetTemperatureThreshold, gpu.temp_shutdown, gpu.temp_slowdown, gpu.temp_mem_max, gpu.temp_gpu_max)
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
PAIR_GETTER(nvmlDeviceGetEccMode, ecc, ecc)
PAIR_GETTER(nvmlDeviceGetMigMode, mig, mig)
GETTER(nvmlDeviceGetPersistenceMode, uint, persistence)
GETTER(nvmlDeviceGetComputeMode, uint, compute_mode)
GETTER(nvmlDeviceGetCurrPcieLinkGeneration, uint, pcie_gen)
GETTER(nvmlDeviceGetCurrPcieLinkWidth, uint, pcie_width)
GETTER(nvmlDeviceGetMaxPcieLinkGeneration, uint, max_pcie_gen)
GETTER(nvmlDeviceGetMaxPcieLinkWidth, uint, max_pcie_width)
GETTER(nvmlDeviceGetPcieReplayCounter, uint, pcie_replay)
GETTER(nvmlDeviceGetSupportedEventTypes, ull, event_types)

Result nvmlDeviceGetFanSpeed_v2(Device device, uint fan, uint *out) {
    ON_DEVICE(out && (gpu.fan == ABSENT || fan < gpu.fans));
    return PUT(out, gpu.fan);
}

Result nvmlDeviceGetPciInfo_v3(Device device, PciInfo *out) {
    ON_DEVICE(out);
    *out = (PciInfo){.pci_id = (uint)gpu.pci_device_id, .subsystem_id = (uint)gpu.pci_subsystem_id};
    sscanf(gpu.pci, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    uint domain = out->domain & 0xFFFF, bus = out->bus & 0xFF, slot = out->device & 0xFF;
    snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", domain, bus, slot);
    return put_text(out->bus_id, sizeof out->bus_id, gpu.pci);
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
    ON_DEVICE(out);
    result = memory_of(&gpu, &memory);
    if (result == SUCCESS)
        *out = (Memory){memory.total, memory.free, memory.used + memory.reserved}; /* v1 counts both as used */
    return result;
}

static Value value_of(uint type, long long number) {
    switch (type) {
    case DOUBLE: return (Value){.d = (double)number};
    case UINT: return (Value){.ui = (uint)number};
    case INT: return (Value){.si = (int)number};
    case USHORT: return (Value){.us = (unsigned short)number};
    default: return (Value){.sll = number};
    }
}

static void answer_field(FieldValue *field, Gpu *gpu) {
    long long value = ABSENT;
    int position = 0, any_scope = field->id == 138 || field->id == 139; /* one link or all of them: one answer */
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    *field = (FieldValue){.id = field->id, .scope = field->scope, .type = UINT, .latency_us = 3};
    field->at_us = time.tv_sec * 1000000LL + time.tv_nsec / 1000;
    for (size_t i = 0; i < LENGTH(fields); i++) {
        if (fields[i].id != field->id || field->id >= FIELD_ID_END || (field->scope && !any_scope))
            continue; /* another scope of power is the memory or the module: not this machine's */
        value = *number_at(gpu, fields[i].offset);
        field->type = fields[i].type;
    }
    for (const Entry *entry; (entry = next_entry(&now, "field", gpu->index, &position));) {
        if (entry->id != field->id)
            continue;
        field->result = (Result)entry->number;
        field->type = *entry->type ? (uint)number(entry->type) : field->type;
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
    for (size_t i = 0; i < LENGTH(counters); i++)
        *number_at(gpu_of(&now, device->uuid), counters[i].grown) += *number_at(&gpu, counters[i].step);
    return SUCCESS;
}

static Result processes_of(const Gpu *gpu, const char *type, uint *count, ProcessInfo *infos) {
    uint found = 0, room = *count;
    int position = 0;
    for (const Entry *entry; (entry = next_entry(&now, "process", gpu->index, &position));) {
        if (strcmp(entry->type, type))
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
        ON_DEVICE(count && (!*count || infos)); \
        return processes_of(&gpu, type, count, infos); \
    }
PROCESS_GETTER(nvmlDeviceGetComputeRunningProcesses_v2, "compute")
PROCESS_GETTER(nvmlDeviceGetGraphicsRunningProcesses_v2, "graphics")
PROCESS_GETTER(nvmlDeviceGetMPSComputeRunningProcesses_v2, "mps")

Result nvmlEventSetCreate(EventSet **out) {
    ON_MACHINE(out);
    for (size_t i = 0; i < LENGTH(event_sets); i++) {
        if (event_sets[i].open)
            continue;
        event_sets[i] = (EventSet){.open = 1};
        *out = &event_sets[i];
        return SUCCESS;
    }
    return INSUFFICIENT_RESOURCES;
}

static int is_open(const EventSet *events) {
    return events >= event_sets && events < event_sets + LENGTH(event_sets) && events->open;
}

Result nvmlDeviceRegisterEvents(Device device, ull types, EventSet *events) {
    ON_DEVICE(is_open(events));
    if (types & ~(ull)gpu.event_types)
        return NOT_SUPPORTED; /* all or nothing, as with the real one */
    events->types[device - handles] |= types;
    return SUCCESS;
}

Result nvmlEventSetWait_v2(EventSet *events, EventData *out, uint timeout_ms) {
    long long begin_us = monotonic_us();
    ON_MACHINE(out && is_open(events));
    while (events->open && !events->pending_count) {
        if (monotonic_us() - begin_us >= timeout_ms * 1000LL)
            return TIMEOUT;
        pause_ms(2);
    }
    if (!events->open)
        return UNINITIALIZED; /* freed or shut down meanwhile */
    *out = events->pending[0];
    memmove(events->pending, events->pending + 1, (size_t)--events->pending_count * sizeof *events->pending);
    return SUCCESS;
}

Result nvmlEventSetFree(EventSet *events) {
    ON_MACHINE(is_open(events));
    events->open = 0;
    return SUCCESS;
}

#ifndef OLD_DRIVER /* later than the 470 branch */

PAIR_GETTER(nvmlDeviceGetJpgUtilization, jpg_util, sampling_period_us)
PAIR_GETTER(nvmlDeviceGetOfaUtilization, ofa_util, sampling_period_us)
GETTER(nvmlDeviceGetCurrentClocksEventReasons, ull, reasons)
GETTER(nvmlDeviceGetSupportedClocksEventReasons, ull, supported_reasons)
PROCESS_GETTER(nvmlDeviceGetComputeRunningProcesses_v3, "compute")
PROCESS_GETTER(nvmlDeviceGetGraphicsRunningProcesses_v3, "graphics")
PROCESS_GETTER(nvmlDeviceGetMPSComputeRunningProcesses_v3, "mps")

Result nvmlDeviceGetMemoryInfo_v2(Device device, MemoryV2 *out) {
    ON_DEVICE(out);
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
