/*
 * How well a GPU is: errors, rows and pages taken out of use, repairs; and what it does beside computing.
 */
#include "fake_nvml.h"

#include <stdio.h>
#include <string.h>

/* ---- ECC, remapped rows and retired pages ---- */

Result nvmlDeviceGetTotalEccErrors(Device device, uint type, uint counter, ull *out) {
    ON_DEVICE(out && type < 2 && counter < 2);
    const long long counts[2][2] = {
        {gpu.ecc_corrected_volatile, gpu.ecc_corrected_aggregate},
        {gpu.ecc_uncorrected_volatile, gpu.ecc_uncorrected_aggregate},
    };
    return gpu.ecc == 1 ? PUT(out, counts[type][counter]) : NOT_SUPPORTED;
}

Result nvmlDeviceGetMemoryErrorCounter(Device device, uint type, uint counter, uint place, ull *out) {
    ON_DEVICE(out && type < 2 && counter < 2 && place < 8);
    const long long counts[2][2][2] = {
        {{gpu.corrected_volatile_dram, gpu.corrected_volatile_sram},
         {gpu.corrected_aggregate_dram, gpu.corrected_aggregate_sram}},
        {{gpu.uncorrected_volatile_dram, gpu.uncorrected_volatile_sram},
         {gpu.uncorrected_aggregate_dram, gpu.uncorrected_aggregate_sram}},
    };
    if (gpu.ecc != 1 || (place != 2 && place != 7)) /* DRAM and SRAM: the other places are of Volta and older */
        return NOT_SUPPORTED;
    return PUT(out, counts[type][counter][place == 7]);
}

Result nvmlDeviceGetRemappedRows(Device device, uint *correctable, uint *uncorrectable, uint *pending, uint *failed) {
    ON_DEVICE(correctable && uncorrectable && pending && failed);
    if (gpu.mig == 1 || PUT(correctable, gpu.remapped_correctable) || PUT(uncorrectable, gpu.remapped_uncorrectable))
        return NOT_SUPPORTED;
    return PUT(pending, gpu.remapped_pending) ? NOT_SUPPORTED : PUT(failed, gpu.remapped_failed);
}

Result nvmlDeviceGetRowRemapperHistogram(Device device, RemapHistogram *out) {
    ON_DEVICE(out);
    *out = (RemapHistogram){
        (uint)gpu.spares_max, (uint)gpu.spares_high, (uint)gpu.spares_partial, (uint)gpu.spares_low,
        (uint)gpu.spares_none,
    };
    return gpu.spares_max == ABSENT ? NOT_SUPPORTED : SUCCESS;
}

static Result retired_pages(const Gpu *gpu, uint cause, uint *count, ull *addresses, ull *times) {
    uint found = 0, room = addresses ? *count : 0;
    int position = 0;
    for (const Entry *entry; (entry = next_entry("retired_page", gpu->index, &position));) {
        if (entry->cause != cause)
            continue;
        if (found < room)
            addresses[found] = (ull)entry->address;
        if (found < room && times)
            times[found] = entry->t_us == ABSENT ? 0 : (ull)entry->t_us;
        found++;
    }
    if (!found && (cause ? gpu->retired_dbe : gpu->retired_sbe) == ABSENT)
        return NOT_SUPPORTED; /* GPUs that remap rows retire no pages */
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

Result nvmlDeviceGetRetiredPages(Device device, uint cause, uint *count, ull *addresses) {
    ON_DEVICE(cause < 2 && count && (!*count || addresses));
    return retired_pages(&gpu, cause, count, addresses, NULL);
}

Result nvmlDeviceGetRetiredPages_v2(Device device, uint cause, uint *count, ull *addresses, ull *times) {
    ON_DEVICE(cause < 2 && count && (!*count || (addresses && times)));
    return retired_pages(&gpu, cause, count, addresses, times);
}

/* ---- sessions of the encoder and of frame-buffer capture ---- */

Result nvmlDeviceGetEncoderStats(Device device, uint *sessions, uint *frames_per_second, uint *latency_us) {
    ON_DEVICE(sessions && frames_per_second && latency_us);
    if (PUT(sessions, gpu.encoder_sessions))
        return NOT_SUPPORTED;
    return PUT(frames_per_second, gpu.encoder_fps) ? NOT_SUPPORTED : PUT(latency_us, gpu.encoder_latency_us);
}

Result nvmlDeviceGetFBCStats(Device device, CaptureStats *out) {
    ON_DEVICE(out);
    *out = (CaptureStats){(uint)gpu.fbc_sessions, (uint)gpu.fbc_fps, (uint)gpu.fbc_latency_us};
    return gpu.fbc_sessions == ABSENT ? NOT_SUPPORTED : SUCCESS;
}

#ifndef OLD_DRIVER /* later than the 470 branch */

/* A call whose answer is one word behind the version. */
#define FLAG_GETTER(symbol, setting) \
    Result symbol(Device device, Flag *out) { \
        ON_DEVICE(out); \
        return out->version == VERSION(Flag, 1) ? PUT(&out->value, gpu.setting) : VERSION_MISMATCH; \
    }
FLAG_GETTER(nvmlDeviceGetUnrepairableMemoryFlag_v1, unrepairable)
FLAG_GETTER(nvmlDeviceGetAddressingMode, addressing)

Result nvmlDeviceGetDramEncryptionMode(Device device, Flag *current, Flag *pending) {
    ON_DEVICE(current && pending);
    if (current->version != VERSION(Flag, 1) || pending->version != VERSION(Flag, 1))
        return VERSION_MISMATCH;
    return PUT(&current->value, gpu.dram_encryption) ? NOT_SUPPORTED : PUT(&pending->value, gpu.dram_encryption);
}

Result nvmlDeviceGetRepairStatus(Device device, RepairStatus *out) {
    ON_DEVICE(out);
    if (out->version != VERSION(RepairStatus, 1))
        return VERSION_MISMATCH;
    return PUT(&out->channel_pending, gpu.channel_repair) ? NOT_SUPPORTED : PUT(&out->tpc_pending, gpu.tpc_repair);
}

Result nvmlDeviceGetSramEccErrorStatus(Device device, SramErrors *out) {
    ON_DEVICE(out);
    if (out->version != VERSION(SramErrors, 1))
        return VERSION_MISMATCH;
    if (gpu.ecc != 1 || gpu.sram_exceeded == ABSENT)
        return NOT_SUPPORTED;
    *out = (SramErrors){
        .version = out->version,
        .aggregate_parity = (ull)gpu.sram_parity_aggregate, .aggregate_secded = (ull)gpu.sram_secded_aggregate,
        .volatile_parity = (ull)gpu.sram_parity_volatile, .volatile_secded = (ull)gpu.sram_secded_volatile,
        .l2 = (ull)gpu.sram_l2, .sm = (ull)gpu.sram_sm, .pcie = (ull)gpu.sram_pcie,
        .microcontroller = (ull)gpu.sram_microcontroller, .other = (ull)gpu.sram_other,
        .threshold_exceeded = (uint)gpu.sram_exceeded,
    };
    return SUCCESS;
}

Result nvmlDeviceGetConfComputeProtectedMemoryUsage(Device device, Memory *out) {
    ON_DEVICE(out);
    if (gpu.protected_total == ABSENT)
        return NOT_SUPPORTED;
    *out = (Memory){(ull)gpu.protected_total, (ull)(gpu.protected_total - gpu.protected_used), (ull)gpu.protected_used};
    return SUCCESS;
}

/* ---- the fabric of NVSwitches ---- */

static Result fabric_of(const Gpu *gpu, FabricInfoV3 *out) {
    if (gpu->fabric_state == ABSENT)
        return NOT_SUPPORTED;
    out->state = (uint)gpu->fabric_state;
    out->status = (Result)gpu->fabric_status;
    out->clique = (uint)gpu->fabric_clique;
    out->health_mask = (uint)gpu->fabric_health_mask;
    out->health = (unsigned char)gpu->fabric_health;
    for (size_t i = 0; i < sizeof out->cluster && strlen(gpu->cluster) >= 2 * i + 2; i++)
        sscanf(gpu->cluster + 2 * i, "%2hhx", &out->cluster[i]);
    return SUCCESS;
}

Result nvmlDeviceGetGpuFabricInfo(Device device, FabricInfo *out) {
    FabricInfoV3 info = {0};
    ON_DEVICE(out);
    result = fabric_of(&gpu, &info);
    if (result == SUCCESS)
        memcpy(out, info.cluster, sizeof *out); /* the same members, without the first and the last */
    return result;
}

Result nvmlDeviceGetGpuFabricInfoV(Device device, void *out) {
    FabricInfoV3 info = {0};
    ON_DEVICE(out);
    info.version = *(uint *)out;
    if (info.version != VERSION(FabricInfoV2, 2) && info.version != VERSION(FabricInfoV3, 3))
        return VERSION_MISMATCH;
    if (info.version == VERSION(FabricInfoV3, 3) && gpu.fabric_health == ABSENT)
        return VERSION_MISMATCH; /* a driver before the summary */
    result = fabric_of(&gpu, &info);
    if (result == SUCCESS)
        memcpy(out, &info, info.version & 0xFFFFFF);
    return result;
}

#endif
