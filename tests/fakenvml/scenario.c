/*
 * Reads a scenario, keeps the machine as it is now, and is the way into every call.  The format stands at the top of
 * fake_nvml.c.
 */
#define _GNU_SOURCE
#include "fake_nvml.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
Scenario now;
struct Handle handles[HANDLES];
int init_count;
static Scenario next;
static int handle_count, broken;
static char loaded_driver[TEXT_SIZE]; /* what the machine's driver was when this image of the library was mapped */

typedef struct { const char *name; size_t offset; enum { TEXT, NUMBER } kind; } Setting;
#define TEXT_SETTING(structure, name) {#name, offsetof(structure, name), TEXT},
#define NUMBER_SETTING(structure, name) {#name, offsetof(structure, name), NUMBER},
#define GPU_TEXT(name, standard) TEXT_SETTING(Gpu, name)
#define GPU_NUMBER(name, standard) NUMBER_SETTING(Gpu, name)
#define GPU_COUNTER(name, step) NUMBER_SETTING(Gpu, name) NUMBER_SETTING(Gpu, step)
#define ENTRY_TEXT(name, standard) TEXT_SETTING(Entry, name)
#define ENTRY_NUMBER(name, standard) NUMBER_SETTING(Entry, name)
static const Setting gpu_settings[] = {TEXTS(GPU_TEXT) NUMBERS(GPU_NUMBER) COUNTERS(GPU_COUNTER) {0}};
static const Setting entry_settings[] = {ENTRY_TEXTS(ENTRY_TEXT) ENTRY_NUMBERS(ENTRY_NUMBER) {0}};

#define COUNTER(name, step) {offsetof(Gpu, name), offsetof(Gpu, step), offsetof(Gpu, name##_grown)},
static const struct { size_t start, step, grown; } counters[] = {COUNTERS(COUNTER)};

typedef struct { const char *word; int words; const char *required, *optional; } Keyword;
static const Keyword keywords[] = {
    {"driver", 2, "", ""},
    {"cuda", 2, "", ""},
    {"mismatch", 2, "", ""},
    {"clock_us", 2, "", ""},
    {"gpu", 2, "", ""},
    {"mig", 1, "gpu gi ci uuid profile memory_total", "memory_used sms copy_engines decoders encoders jpegs ofas"},
    {"process", 1, "gpu type", "pid memory gi ci sm mem enc dec jpg ofa t_us"},
    {"sample", 1, "gpu type t_us value", "value_type stale"},
    {"samples", 1, "gpu type", "period_us depth values value_type placeholders unsorted"},
    {"gpm", 1, "gpu", "gi supported streaming no_permission_after"},
    {"metric", 3, "", "gpu gi"},
    {"nvlink", 1, "gpu link",
     "state version speed_mb_per_s remote remote_type ecc_errors replays recoveries crc_errors tx_packets tx_bytes "
     "rx_packets rx_bytes vl15_dropped malformed overruns rx_errors rx_remote_errors tx_kib rx_kib raw_tx_kib raw_rx_kib "
     "remote_link crc_flit_errors crc_data_errors rx_general_errors integrity_errors tx_discards recovered "
     "not_recovered effective_errors effective_ber symbol_errors symbol_ber values"},
    {"topology", 1, "gpu peer level", "read write nvlink atomics pci"},
    {"retired_page", 1, "gpu cause address", "t_us"},
    {"xid", 1, "gpu", "code gi ci"},
    {"event", 1, "gpu type", "data gi ci"},
    {"events", 1, "gpu supported", ""},
    {"field", 3, "", "gpu value type"},
    {"fail", 3, "", "gpu"},
    {"missing", 2, "", "gpu"},
    {"hang", 3, "", "gpu"},
};

/* ---- reading a scenario ---- */

static char complaint[3 * TEXT_SIZE]; /* about the line being read; the first one stands */

static void complain(const char *what, const char *word) {
    if (!*complaint)
        snprintf(complaint, sizeof complaint, "%s%s%s", what, *word ? ": " : "", word);
}

/* Cuts the next word out of the line, in place; quotes hold blanks together and vanish. */
static char *next_word(char **cursor) {
    char *from = *cursor + strspn(*cursor, " \t\r\n"), *word = from, *to = from;
    int quoted = 0;
    if (!*from || *from == '#')
        return NULL;
    for (; *from && (quoted || !strchr(" \t\r\n", *from)); from++) {
        if (*from == '"')
            quoted = !quoted;
        else
            *to++ = *from;
    }
    *cursor = *from ? from + 1 : from;
    *to = '\0';
    if (quoted)
        complain("a quote has no end", "");
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

static int is(const Entry *entry, const char *keyword) { return !strcmp(entry->keyword, keyword); }

/* Whether the word is among those, which stand with single blanks between them. */
static int lists(const char *words, const char *word) {
    size_t length = strlen(word);
    for (const char *at = words; length && (at = strstr(at, word)); at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || !at[length]))
            return 1;
    return 0;
}

long long *number_at(void *structure, size_t offset) { return (long long *)((char *)structure + offset); }

static void set(const Setting *setting, void *structure, const char *key, const char *value) {
    while (setting->name && strcmp(setting->name, key))
        setting++;
    if (!setting->name)
        complain("no such setting", key);
    else if (setting->kind == NUMBER)
        *number_at(structure, setting->offset) = number(value);
    else if (snprintf((char *)structure + setting->offset, TEXT_SIZE, "%s", value) >= TEXT_SIZE)
        complain("too long", key);
}

/* A value of the line that is being read and will be the scenario's next entry. */
static void add_item(Scenario *scenario, uint id, const char *text, const char **end) {
    int is_none = !strncmp(text, "none", 4);
    double value = is_none ? NAN : strtod(text, (char **)end);
    if (is_none)
        *end = text + 4;
    else if (*end == text)
        complain("not a number", text);
    if (scenario->item_count == (int)LENGTH(scenario->items))
        complain("one value too many", text);
    else
        scenario->items[scenario->item_count++] = (Item){scenario->entry_count, id, value};
}

static void add_items(Scenario *scenario, const char *list) {
    uint count = 0;
    for (const char *at = list, *end = list; at; at = *end == ',' ? end + 1 : NULL) {
        add_item(scenario, count++, at, &end);
        if (*end && *end != ',')
            complain("not a list of numbers", list);
    }
}

static void set_entry(Scenario *scenario, const Keyword *keyword, Entry *entry, const char *key, const char *value) {
    const char *end = "";
    if (!strcmp(keyword->word, "gpm") && *key && !key[strspn(key, "0123456789")]) {
        add_item(scenario, (uint)number(key), value, &end);
        if (*end)
            complain("not a number", value);
    } else if (!lists(keyword->required, key) && !lists(keyword->optional, key)) {
        complain("no such setting", key);
    } else if (!strcmp(key, "values")) {
        add_items(scenario, value);
    } else {
        set(entry_settings, entry, key, value);
    }
}

static Gpu new_gpu(int index) {
    Gpu gpu = {TEXTS(STANDARD) NUMBERS(STANDARD).gpm = ABSENT, .gpm_no_permission_after = ABSENT, .index = index};
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

static void require(const char *words, const char *given, const char *keyword) {
    char copy[TEXT_SIZE], what[2 * TEXT_SIZE], *rest = copy;
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word; (word = strtok_r(rest, " ", &rest));) {
        snprintf(what, sizeof what, "of which %s", word);
        if (!lists(given, word))
            complain(what, keyword);
    }
}

/* Turns into numbers what has a meaning of its own with this keyword. */
static void check(Entry *entry) {
    if (is(entry, "process") && !lists("compute graphics mps", entry->type))
        complain("no such type of process", entry->type);
    if (entry->period_us <= 0 || entry->depth <= 0 || entry->depth > 4096 || entry->placeholders > 4096)
        complain("a period is above 0, a depth up to 4096", entry->keyword);
    if (lists("field metric mismatch clock_us", entry->keyword))
        entry->id = number(entry->name);
    else if (lists("event sample samples", entry->keyword))
        entry->id = number(entry->type);
    if (lists("sample samples", entry->keyword) && (entry->id < 0 || entry->id >= SAMPLE_TYPES))
        complain("no such type of sample", entry->type);
    if (is(entry, "event") && entry->id <= 0)
        complain("no such type of event", entry->type);
    if (is(entry, "field") && *entry->type)
        number(entry->type);
    if (is(entry, "xid")) {
        entry->id = XID;
        entry->data = entry->code;
    }
}

static const Keyword *keyword_of(const char *word) {
    for (const Keyword *keyword = keywords; keyword < keywords + LENGTH(keywords); keyword++)
        if (!strcmp(keyword->word, word))
            return keyword;
    return NULL;
}

static void add_entry(Scenario *scenario, Entry *entry, const char *const *words) {
    if (scenario->entry_count == (int)LENGTH(scenario->entries)) {
        complain("one line too many", words[0]);
        return;
    }
    snprintf(entry->keyword, sizeof entry->keyword, "%s", words[0]);
    snprintf(entry->name, sizeof entry->name, "%s", words[1]);
    entry->number = number(words[2]);
    check(entry);
    scenario->entries[scenario->entry_count++] = *entry;
}

static void read_line(Scenario *scenario, char *text) {
    Entry entry = {ENTRY_TEXTS(STANDARD) ENTRY_NUMBERS(STANDARD).number = 0};
    const char *words[3] = {"", "", "0"};
    char given[16 * TEXT_SIZE] = "";
    const Keyword *keyword = NULL;
    int count = 0;
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
        else if ((keyword = keyword_of(words[0])))
            set_entry(scenario, keyword, &entry, word, value);
        if (value)
            snprintf(given + strlen(given), sizeof given - strlen(given), "%s ", word);
    }
    if (!count)
        return;
    keyword = keyword_of(words[0]);
    if (!keyword || keyword->words != count) {
        complain("no such line, or not with so many words", words[0]);
    } else if (!strcmp(words[0], "gpu")) {
        gpu_numbered(scenario, words[1]);
    } else {
        require(keyword->required, given, words[0]);
        add_entry(scenario, &entry, words);
    }
}

/* Brings what a line says of a GPU to the GPU, when all lines are read. */
static void apply(Scenario *scenario, const Entry *entry) {
    int is_known = entry->gpu == ABSENT || (entry->gpu >= 0 && entry->gpu < scenario->gpu_count);
    if (!is_known || (is(entry, "topology") && (entry->peer < 0 || entry->peer >= scenario->gpu_count)))
        complain("no such GPU", entry->keyword);
    if (!is_known || entry->gpu == ABSENT)
        return;
    Gpu *gpu = &scenario->gpus[entry->gpu];
    if (is(entry, "events"))
        gpu->event_types = entry->supported;
    if (is(entry, "mig") && !gpu->mig)
        complain("MIG is off on that GPU", entry->keyword);
    else if (is(entry, "mig"))
        gpu->mig = 1;
    if (is(entry, "gpm")) {
        gpu->gpm = entry->supported != ABSENT ? entry->supported : gpu->gpm == ABSENT ? 1 : gpu->gpm;
        if (entry->streaming != ABSENT)
            gpu->gpm_streaming = entry->streaming;
        if (entry->no_permission_after != ABSENT)
            gpu->gpm_no_permission_after = entry->no_permission_after;
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
    for (; file && !*complaint && fgets(text, sizeof text, file); line++) {
        if (strlen(text) == sizeof text - 1)
            complain("too long a line", "");
        read_line(scenario, text);
    }
    for (const Entry *entry = scenario->entries; entry < scenario->entries + scenario->entry_count; entry++)
        apply(scenario, entry);
    for (const Gpu *gpu = scenario->gpus; gpu < scenario->gpus + scenario->gpu_count; gpu++)
        if (strcmp(gpu->cpus, "none") && gpu->cpus[strspn(gpu->cpus, "0123456789-,")])
            complain("not a list of CPUs", gpu->cpus);
    if (file)
        fclose(file);
    if (*complaint)
        fprintf(stderr, "fake_nvml: %s:%d: %s\n", path, line, complaint);
    return !*complaint;
}

/* ---- the machine now ---- */

Value value_of(uint type, long long number) {
    switch (type) {
    case DOUBLE: return (Value){.d = (double)number};
    case UINT: return (Value){.ui = (uint)number};
    case INT: return (Value){.si = (int)number};
    case USHORT: return (Value){.us = (unsigned short)number};
    default: return (Value){.sll = number};
    }
}

static Gpu *gpu_in(Scenario *scenario, const char *uuid) {
    for (int i = 0; i < scenario->gpu_count; i++)
        if (!strcmp(scenario->gpus[i].uuid, uuid))
            return &scenario->gpus[i];
    return NULL;
}

Gpu *gpu_of(const char *uuid) { return gpu_in(&now, uuid); }

Gpu *parent_of(const Entry *mig) { return &now.gpus[mig->gpu]; }

const Entry *mig_of(const char *uuid) {
    for (const Entry *entry = now.entries; entry < now.entries + now.entry_count; entry++)
        if (is(entry, "mig") && !strcmp(entry->uuid, uuid))
            return entry;
    return NULL;
}

Device handle_of(const char *uuid, int is_mig) {
    for (int i = 0; i < handle_count; i++)
        if (!strcmp(handles[i].uuid, uuid))
            return &handles[i];
    if (handle_count == HANDLES)
        return NULL;
    snprintf(handles[handle_count].uuid, TEXT_SIZE, "%s", uuid);
    handles[handle_count].is_mig = is_mig;
    return &handles[handle_count++];
}

int is_handle(Device device) { return device >= handles && device < handles + handle_count; }

int is_lost(const Gpu *gpu) { return gpu->lost_after != ABSENT && gpu->calls > gpu->lost_after; }

/* The next entry of that keyword from *position on that speaks of this GPU (or of all, saying nothing of GPUs). */
const Entry *next_entry(const char *keyword, long long index, int *position) {
    while (*position < now.entry_count) {
        const Entry *entry = &now.entries[(*position)++];
        if (is(entry, keyword) && (entry->gpu == ABSENT || entry->gpu == index))
            return entry;
    }
    return NULL;
}

/* The line that says this of this function; index ABSENT for a call that concerns no GPU. */
static const Entry *rule(const char *keyword, const char *function, long long index) {
    int position = 0;
    for (const Entry *entry; (entry = next_entry(keyword, index, &position));) {
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
const char *said(const char *keyword, const char *standard) {
    int position = 0;
    const Entry *entry = next_entry(keyword, ABSENT, &position);
    return entry ? entry->name : standard;
}

long long monotonic_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

long long driver_us(void) {
    int position = 0;
    const Entry *standing = next_entry("clock_us", ABSENT, &position);
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return standing ? standing->id : time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

/* Counters are of 64 bits and wrap. */
static void add(Gpu *gpu, size_t counter, size_t step) {
    *number_at(gpu, counter) = (long long)((ull)*number_at(gpu, counter) + (ull)*number_at(gpu, step));
}

void count_up(Gpu *gpu) {
    for (size_t i = 0; i < LENGTH(counters); i++)
        add(gpu, counters[i].grown, counters[i].step);
}

/* What has counted up goes on counting under the new file, unless the file moved its start. */
static void carry_over(Gpu *new, Gpu *old) {
    for (size_t i = 0; i < LENGTH(counters); i++)
        if (*number_at(new, counters[i].start) == *number_at(old, counters[i].start))
            *number_at(new, counters[i].grown) = *number_at(old, counters[i].grown);
    if (new->lost_after == old->lost_after)
        new->calls = old->calls;
    if (new->gpm_no_permission_after == old->gpm_no_permission_after)
        new->gpm_calls = old->gpm_calls;
}

/* The n-th line of a scenario that is an event. */
static const Entry *nth_event(const Scenario *scenario, int n) {
    for (int i = 0; i < scenario->entry_count; i++)
        if (lists("xid event", scenario->entries[i].keyword) && n-- == 0)
            return &scenario->entries[i];
    return NULL;
}

static int same_event(const Entry *a, const Entry *b) {
    return a->gpu == b->gpu && a->id == b->id && a->data == b->data && a->gi == b->gi && a->ci == b->ci;
}

void refresh(void) {
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
        Gpu *before = gpu_of(next.gpus[i].uuid);
        if (before)
            carry_over(&next.gpus[i], before);
    }
    while ((old = nth_event(&now, known)) && (new = nth_event(&next, known)) && same_event(old, new))
        known++; /* the lines that both files begin with are old news */
    now = next;
    if (!*loaded_driver)
        snprintf(loaded_driver, sizeof loaded_driver, "%s", said("driver", DRIVER));
    while ((new = nth_event(&now, known++)))
        deliver(new);
}

/* ---- the way into a call ---- */

pthread_mutex_t *locked(void) {
    pthread_mutex_lock(&lock);
    return &lock;
}

void unlock(pthread_mutex_t **held) { pthread_mutex_unlock(*held); }

__attribute__((constructor)) static void load(void) {
    LOCKED;
    refresh();
}

void pause_ms(long milliseconds) {
    pthread_mutex_unlock(&lock);
    nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
    pthread_mutex_lock(&lock);
    refresh();
}

void hang(const char *function, long long index) {
    const Entry *entry;
    long long begin_us = monotonic_us();
    while ((entry = rule("hang", function, index)) && monotonic_us() - begin_us < entry->number * 1000)
        pause_ms(2);
}

/* What every call answers while the scenario is wrong, or this image of the library is not the driver's. */
Result driver_trouble(void) {
    int position = 0;
    const Entry *mismatch = next_entry("mismatch", ABSENT, &position);
    if (broken)
        return UNKNOWN;
    if (mismatch && mismatch->id && strcmp(loaded_driver, said("driver", DRIVER)))
        return LIB_RM_VERSION_MISMATCH;
    return SUCCESS;
}

Result scripted(const char *function, long long index) {
    const Entry *failure = rule("fail", function, index);
    return rule("missing", function, index) ? FUNCTION_NOT_FOUND : failure ? (Result)failure->number : SUCCESS;
}

/* The GPU behind a handle, which is its parent for a MIG device; NULL when the file knows it no more. */
static Gpu *gpu_behind(Device device, const Entry **mig) {
    *mig = device->is_mig ? mig_of(device->uuid) : NULL;
    return *mig ? parent_of(*mig) : device->is_mig ? NULL : gpu_of(device->uuid);
}

/* What is read through a MIG device's handle is its own and not its parent's. */
static void narrow(Gpu *gpu, const Entry *mig) {
    size_t length = strlen(gpu->name);
    snprintf(gpu->name + length, sizeof gpu->name - length, " MIG %s", mig->profile);
    snprintf(gpu->uuid, sizeof gpu->uuid, "%s", mig->uuid);
    gpu->memory_total = mig->memory_total;
    gpu->memory_used = mig->memory_used;
    gpu->memory_reserved = 0;
}

/* The way into every function but nvmlInit: what the scenario makes of this call and, for a call on a device, a copy
 * of its GPU as it is now, its counters counted up.  Where `mig` is NULL a MIG device's handle is not supported. */
Result enter(const char *function, Device device, Gpu *gpu, const Entry **mig) {
    const Entry *part = NULL;
    refresh();
    Gpu *found = gpu && is_handle(device) ? gpu_behind(device, &part) : NULL;
    hang(function, found ? found->index : ABSENT);
    if (!init_count)
        return UNINITIALIZED;
    if (driver_trouble())
        return driver_trouble();
    if (!gpu)
        return scripted(function, ABSENT);
    if (!is_handle(device))
        return INVALID_ARGUMENT;
    found = gpu_behind(device, &part); /* again: the machine may have changed while the call hung */
    if (found)
        found->calls += found->lost_after != ABSENT;
    if (!found && device->is_mig)
        return INVALID_ARGUMENT; /* nvml.h: the handle "would remain invalid" */
    if (!found || is_lost(found))
        return GPU_IS_LOST;
    if (part && !mig)
        return NOT_SUPPORTED;
    *gpu = *found;
    for (size_t i = 0; i < LENGTH(counters); i++)
        if (*number_at(gpu, counters[i].start) != ABSENT)
            add(gpu, counters[i].start, counters[i].grown);
    if (gpu->mig == 1) /* nvml.h: not supported on MIG-enabled GPUs */
        gpu->util = gpu->mem_util = gpu->encoder_util = gpu->decoder_util = gpu->jpg_util = gpu->ofa_util = ABSENT;
    if (part)
        narrow(gpu, *mig = part);
    return scripted(function, found->index);
}
