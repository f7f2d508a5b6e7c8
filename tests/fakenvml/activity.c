/*
 * What happened on the machine: the buffers of samples that the driver keeps, how busy each process was, GPM, events.
 */
#include "fake_nvml.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* ---- samples ---- */

typedef struct { Sample *out; uint room, written, buffered, value_type; ull last_seen_us; int any_new; } Reader;

/* One entry of the buffer; what is not newer comes along only where the driver is said to be careless. */
static void pass(Reader *reader, ull at_us, double value, int is_stale) {
    int is_new = at_us > reader->last_seen_us;
    reader->buffered++;
    reader->any_new |= is_new;
    if ((is_new || is_stale || !at_us) && reader->written < reader->room)
        reader->out[reader->written++] = (Sample){at_us, value_of(reader->value_type, (long long)value)};
}

/* The entry's values in turn, one each period of the driver's clock, as far back as the buffer is deep. */
static void pass_series(Reader *reader, const Entry *entry) {
    const Item *first = NULL;
    long long count = 0, newest = driver_us() / entry->period_us;
    for (const Item *item = now.items; item < now.items + now.item_count; item++) {
        if (&now.entries[item->entry] != entry)
            continue;
        first = first ? first : item;
        count++;
    }
    for (long long i = 0; i < entry->depth && first; i++) {
        /* unsorted is how a ring lies in memory: the newest somewhere, the oldest after it */
        long long back = entry->unsorted ? (newest - i + entry->depth) % entry->depth : entry->depth - 1 - i;
        long long tick = newest - back;
        if (tick > 0)
            pass(reader, (ull)(tick * entry->period_us), first[tick % count].value, 0);
    }
    for (long long i = 0; i < entry->placeholders; i++)
        pass(reader, 0, 0, 0);
}

Result nvmlDeviceGetSamples(Device device, uint type, ull last_seen_us, uint *value_type, uint *count, Sample *out) {
    ON_DEVICE(value_type && count && type < SAMPLE_TYPES && (!out || *count));
    Reader reader = {.out = out, .room = out ? *count : 0, .value_type = UINT, .last_seen_us = last_seen_us};
    int is_utilization = type >= 1 && type <= 4, is_known = 0;
    for (const Entry *entry = now.entries; entry < now.entries + now.entry_count; entry++) {
        int is_single = !strcmp(entry->keyword, "sample"), is_series = !strcmp(entry->keyword, "samples");
        if (!(is_single || is_series) || entry->gpu != gpu.index || entry->id != type)
            continue;
        is_known = 1;
        reader.value_type = (uint)entry->value_type;
        if (is_single)
            pass(&reader, (ull)entry->t_us, (double)entry->value, entry->stale != 0);
        else
            pass_series(&reader, entry);
    }
    if (!is_known || (gpu.mig == 1 && is_utilization))
        return NOT_SUPPORTED;
    *value_type = reader.value_type;
    *count = !reader.any_new ? 0 : out ? reader.written : reader.buffered;
    return reader.any_new ? SUCCESS : (Result)gpu.nothing_new;
}

/* ---- process utilization ---- */

/* How busy the next process after *position was since then; 0 when there is none. */
static int next_process(const Gpu *gpu, ull last_seen_us, int *position, ProcessSampleV1 *out) {
    for (const Entry *entry; (entry = next_entry("process", gpu->index, position));) {
        ull at_us = (ull)(entry->t_us == ABSENT ? driver_us() : entry->t_us);
        if (entry->sm == ABSENT || at_us <= last_seen_us)
            continue;
        *out = (ProcessSampleV1){at_us, (uint)entry->pid, (uint)entry->sm, (uint)entry->mem,
                                 (uint)entry->enc, (uint)entry->dec, (uint)entry->jpg, (uint)entry->ofa};
        return 1;
    }
    return 0;
}

static Result sized(const Gpu *gpu, uint found, uint room, uint *count) {
    *count = found;
    return !found ? (Result)gpu->nothing_new : found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

Result nvmlDeviceGetProcessUtilization(Device device, ProcessSample *samples, uint *count, ull last_seen_us) {
    ON_DEVICE(count);
    uint found = 0, room = samples ? *count : 0;
    int position = 0;
    if (gpu.mig == 1)
        return NOT_SUPPORTED;
    for (ProcessSampleV1 one; next_process(&gpu, last_seen_us, &position, &one); found++)
        if (found < room)
            samples[found] = (ProcessSample){one.pid, one.at_us, one.sm, one.memory, one.encoder, one.decoder};
    return sized(&gpu, found, room, count);
}

/* ---- events ---- */

typedef struct EventSet {
    int open, pending_count;
    ull types[HANDLES]; /* what is registered, by handle */
    EventData pending[64];
} EventSet;
static EventSet event_sets[16];

void close_event_sets(void) { memset(event_sets, 0, sizeof event_sets); }

/* Only who is registered now hears of it: with the real driver, too, earlier events are lost. */
void deliver(const Entry *event) {
    Device device = handle_of(now.gpus[event->gpu].uuid, 0);
    EventData data = {device, (ull)event->id, (ull)event->data, (uint)event->gi, (uint)event->ci};
    for (size_t i = 0; device && i < LENGTH(event_sets); i++) {
        EventSet *events = &event_sets[i];
        int room = events->pending_count < (int)LENGTH(events->pending);
        if (events->open && room && events->types[device - handles] & data.type)
            events->pending[events->pending_count++] = data;
    }
}

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

static int has_lost_a_gpu(const EventSet *events) {
    for (int i = 0; i < HANDLES; i++) {
        const Gpu *gpu = events->types[i] ? gpu_of(handles[i].uuid) : NULL;
        if (events->types[i] && (!gpu || is_lost(gpu)))
            return 1;
    }
    return 0;
}

Result nvmlEventSetWait_v2(EventSet *events, EventData *out, uint timeout_ms) {
    long long begin_us = monotonic_us();
    ON_MACHINE(out && is_open(events));
    while (events->open && !events->pending_count) {
        result = driver_trouble() ? driver_trouble() : scripted(__func__, ABSENT);
        if (result != SUCCESS)
            return result;
        if (has_lost_a_gpu(events))
            return GPU_IS_LOST;
        if (monotonic_us() - begin_us >= timeout_ms * 1000LL)
            return TIMEOUT;
        pause_ms(100); /* seldom enough not to look like the cost of who waits */
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

Result nvmlDeviceGetProcessesUtilizationInfo(Device device, ProcessSamplesV1 *out) {
    ON_DEVICE(out);
    uint found = 0, room = out->samples ? out->count : 0;
    int position = 0;
    if (out->version != VERSION(ProcessSamplesV1, 1))
        return VERSION_MISMATCH;
    if (gpu.mig == 1)
        return NOT_SUPPORTED;
    for (ProcessSampleV1 one; next_process(&gpu, out->last_seen_us, &position, &one); found++)
        if (found < room)
            out->samples[found] = one;
    return sized(&gpu, found, room, &out->count);
}

/* ---- GPM ---- */

struct GpmSample { int is_open; ull taken; char uuid[TEXT_SIZE]; long long gi; }; /* taken: in which order, from 1 */
static GpmSample gpm_samples[256];
static atomic_int inside_gpm;

static int enter_gpm(const char *function) {
    int is_alone = atomic_fetch_add(&inside_gpm, 1) == 0;
    if (!is_alone)
        fprintf(stderr, "fake_nvml: two threads are inside GPM at once: %s\n", function);
    return is_alone;
}

static void leave_gpm(int *is_alone) {
    (void)is_alone;
    atomic_fetch_sub(&inside_gpm, 1);
}

/* The real library crashes here, so a caller needs a lock of its own around all of GPM. */
#define ALONE_IN_GPM \
    __attribute__((cleanup(leave_gpm))) int is_alone = enter_gpm(__func__); \
    if (!is_alone) \
        return UNKNOWN

static int is_sample(const GpmSample *sample) {
    return sample >= gpm_samples && sample < gpm_samples + LENGTH(gpm_samples) && sample->is_open;
}

Result nvmlGpmSampleAlloc(GpmSample **out) {
    ALONE_IN_GPM;
    static size_t turn; /* what was freed is not at once another's, or its late use would go unseen */
    ON_MACHINE(out);
    for (size_t i = 0; i < LENGTH(gpm_samples); i++) {
        *out = &gpm_samples[turn++ % LENGTH(gpm_samples)];
        if ((*out)->is_open)
            continue;
        **out = (GpmSample){.is_open = 1};
        return SUCCESS;
    }
    *out = NULL;
    fprintf(stderr, "fake_nvml: %zu GPM samples are in use: is none freed?\n", LENGTH(gpm_samples));
    return OUT_OF_MEMORY;
}

Result nvmlGpmSampleFree(GpmSample *sample) {
    ALONE_IN_GPM;
    ON_MACHINE(is_sample(sample));
    sample->is_open = 0;
    return SUCCESS;
}

static Result take_sample(Gpu *gpu, long long gi, GpmSample *sample) {
    static ull taken;
    if (gpu->gpm != 1)
        return NOT_SUPPORTED;
    gpu->gpm_calls += gpu->gpm_no_permission_after != ABSENT;
    if (gpu->gpm_no_permission_after != ABSENT && gpu->gpm_calls > gpu->gpm_no_permission_after)
        return NO_PERMISSION;
    *sample = (GpmSample){.is_open = 1, .taken = ++taken, .gi = gi};
    snprintf(sample->uuid, sizeof sample->uuid, "%s", gpu->uuid);
    return SUCCESS;
}

Result nvmlGpmSampleGet(Device device, GpmSample *sample) {
    ALONE_IN_GPM;
    ON_DEVICE_OR_MIG(is_sample(sample));
    return take_sample(&now.gpus[gpu.index], mig ? mig->gi : UINT_MAX, sample);
}

Result nvmlGpmMigSampleGet(Device device, uint gi, GpmSample *sample) {
    const Entry *entry;
    int position = 0;
    ALONE_IN_GPM;
    ON_DEVICE(is_sample(sample));
    while ((entry = next_entry("mig", gpu.index, &position)) && entry->gi != gi)
        ;
    return entry ? take_sample(&now.gpus[gpu.index], gi, sample) : INVALID_ARGUMENT;
}

static void answer_metric(GpmMetric *metric, const Gpu *gpu, long long gi) {
    int position = 0;
    metric->result = NOT_SUPPORTED;
    metric->value = 0;
    metric->short_name = metric->long_name = metric->unit = NULL;
    for (const Item *item = now.items; item < now.items + now.item_count; item++) {
        const Entry *entry = &now.entries[item->entry];
        if (strcmp(entry->keyword, "gpm") || entry->gpu != gpu->index || entry->gi != gi || item->id != metric->id)
            continue;
        metric->result = isnan(item->value) ? NOT_SUPPORTED : SUCCESS;
        metric->value = isnan(item->value) ? 0 : item->value;
    }
    for (const Entry *entry; (entry = next_entry("metric", gpu->index, &position));)
        if (entry->id == metric->id && (entry->gi == UINT_MAX || entry->gi == gi))
            metric->result = (Result)entry->number;
    if (metric->result != SUCCESS)
        metric->value = 0;
}

Result nvmlGpmMetricsGet(GpmMetrics *out) {
    ALONE_IN_GPM;
    ON_MACHINE(out && out->count <= GPM_METRICS && is_sample(out->sample1) && is_sample(out->sample2));
    const GpmSample *before = out->sample1, *after = out->sample2;
    if (out->version != 1)
        return VERSION_MISMATCH;
    if (!before->taken || after->taken <= before->taken || strcmp(before->uuid, after->uuid) || before->gi != after->gi)
        return INVALID_ARGUMENT;
    const Gpu *gpu = gpu_of(before->uuid);
    if (!gpu || is_lost(gpu))
        return GPU_IS_LOST;
    result = scripted(__func__, gpu->index);
    for (uint i = 0; i < out->count && result == SUCCESS; i++)
        answer_metric(&out->metrics[i], gpu, before->gi);
    return result;
}

Result nvmlGpmQueryDeviceSupport(Device device, GpmSupport *out) {
    ALONE_IN_GPM;
    ON_DEVICE_OR_MIG(out);
    if (out->version != 1)
        return VERSION_MISMATCH;
    out->is_supported = gpu.gpm == 1;
    return SUCCESS;
}

Result nvmlGpmQueryIfStreamingEnabled(Device device, uint *out) {
    ALONE_IN_GPM;
    ON_DEVICE(out);
    return gpu.gpm == 1 ? PUT(out, gpu.gpm_streaming) : NOT_SUPPORTED;
}

#endif
