/*
 * NVLink: what a link is, what went over it, and its errors.
 */
#include "fake_nvml.h"

#include <string.h>

/* The GPU's line about that link; without it the link is not valid or, without any, NVLink not supported. */
Result link_of(const Gpu *gpu, uint link, const Entry **out) {
    int position = 0, others = 0;
    while ((*out = next_entry("nvlink", gpu->index, &position)) && (*out)->link != link)
        others++;
    return *out ? SUCCESS : others ? INVALID_ARGUMENT : NOT_SUPPORTED;
}

#define LINK_GETTER(symbol, setting) \
    Result symbol(Device device, uint link, uint *out) { \
        const Entry *entry; \
        ON_DEVICE(out); \
        result = link_of(&gpu, link, &entry); \
        return result ? result : PUT(out, entry->setting); \
    }
LINK_GETTER(nvmlDeviceGetNvLinkState, state)
LINK_GETTER(nvmlDeviceGetNvLinkVersion, version)
LINK_GETTER(nvmlDeviceGetNvLinkRemoteDeviceType, remote_type)

Result nvmlDeviceGetNvLinkRemotePciInfo_v2(Device device, uint link, PciInfo *out) {
    const Entry *entry;
    ON_DEVICE(out);
    result = link_of(&gpu, link, &entry);
    if (result != SUCCESS)
        return result;
    *out = (PciInfo){0};
    return strcmp(entry->remote, "none") ? put_pci(out, entry->remote) : NOT_SUPPORTED;
}

Result nvmlDeviceGetNvLinkErrorCounter(Device device, uint link, uint counter, ull *out) {
    const Entry *entry;
    ON_DEVICE(out && counter < 5);
    result = link_of(&gpu, link, &entry);
    if (result != SUCCESS)
        return result;
    const long long counts[] = {
        entry->replays, entry->recoveries, entry->crc_flit_errors, entry->crc_data_errors, entry->ecc_errors,
    };
    return PUT(out, counts[counter]);
}

/* ---- fields ---- */

/* Of one link, whose number is the field's scope. */
#define LINK_FIELD(id, type, name) {id, type, offsetof(Entry, name)}
static const struct { uint id, type; size_t offset; } link_fields[] = {
    LINK_FIELD(161, ULL, replays), LINK_FIELD(162, ULL, recoveries), LINK_FIELD(163, ULL, crc_errors),
    LINK_FIELD(164, UINT, speed_mb_per_s), LINK_FIELD(165, UINT, state), LINK_FIELD(166, UINT, version),
    LINK_FIELD(201, ULL, tx_packets), LINK_FIELD(202, ULL, tx_bytes), LINK_FIELD(203, ULL, rx_packets),
    LINK_FIELD(204, ULL, rx_bytes), LINK_FIELD(205, ULL, vl15_dropped), LINK_FIELD(206, ULL, malformed),
    LINK_FIELD(207, ULL, overruns), LINK_FIELD(208, ULL, rx_errors), LINK_FIELD(209, ULL, rx_remote_errors),
    LINK_FIELD(210, ULL, rx_general_errors), LINK_FIELD(211, ULL, integrity_errors), LINK_FIELD(212, ULL, tx_discards),
    LINK_FIELD(213, ULL, recovered), LINK_FIELD(214, ULL, not_recovered), LINK_FIELD(219, ULL, effective_errors),
    LINK_FIELD(220, ULL, effective_ber), LINK_FIELD(221, ULL, symbol_errors), LINK_FIELD(222, ULL, symbol_ber),
    LINK_FIELD(138, ULL, tx_kib), LINK_FIELD(139, ULL, rx_kib), LINK_FIELD(140, ULL, raw_tx_kib),
    LINK_FIELD(141, ULL, raw_rx_kib), LINK_FIELD(146, UINT, remote_link),
};

#define FEC_FIRST 235 /* NVML_FI_DEV_NVLINK_COUNT_FEC_HISTORY_0 */

/* How many blocks had so many errors: that value of the line's. */
static long long fec_blocks(const Entry *link, uint errors, uint *type) {
    *type = ULL;
    for (const Item *item = now.items; item < now.items + now.item_count; item++)
        if (&now.entries[item->entry] == link && item->id == errors)
            return (long long)item->value;
    return ABSENT;
}

long long ecc_errors_of_links(const Gpu *gpu) {
    long long sum = ABSENT;
    int position = 0;
    for (const Entry *entry; (entry = next_entry("nvlink", gpu->index, &position));)
        if (entry->ecc_errors != ABSENT)
            sum = entry->ecc_errors + (sum == ABSENT ? 0 : sum);
    return sum;
}

long long link_field(uint id, const Entry *link, uint *type) {
    for (size_t i = 0; i < LENGTH(link_fields); i++) {
        if (link_fields[i].id != id)
            continue;
        *type = link_fields[i].type;
        return *number_at((Entry *)link, link_fields[i].offset);
    }
    return id >= FEC_FIRST && id < FEC_FIRST + 16 ? fec_blocks(link, id - FEC_FIRST, type) : ABSENT;
}
