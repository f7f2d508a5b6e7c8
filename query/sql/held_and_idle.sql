-- How long each holder held each GPU, for how much of that the GPU was idle throughout a bucket, and what that used.
-- Holders of one GPU at one time share it equally. Held is also what has memory in use that no process is seen to hold.
with sampled as (
    select host, gpu_uuid, gpu_index, mig_gpu_instance_id, observed_at, seq, power_watts,
           {bucket} as bucket,
           coalesce(interval_seconds, {expected}) as stood_seconds,
           case when mig_gpu_instance_id is null then utilization_percent else 100 * sm_active_ratio end as busy_percent,
           memory_used_bytes - coalesce(memory_reserved_bytes, 0) as held_bytes
    from {relation}
    where {in_window}
),
gpu as (
    select host, gpu_uuid, bucket, max_by(gpu_index, (observed_at, seq)) as gpu_index,
           max(mig_gpu_instance_id) as instance,
           sum(stood_seconds) as seconds, max(busy_percent) as busy_percent,
           sum(stood_seconds * power_watts) as joules, max(held_bytes) as held_bytes
    from sampled
    group by host, gpu_uuid, bucket
),
holder as (
    select distinct host, gpu_uuid, {bucket} as bucket, {holder} as holder
    from {processes}
    where {in_window}
),
shared as (
    select host, gpu_uuid, bucket, count(*) as holders
    from holder
    group by host, gpu_uuid, bucket
)
select gpu.host, gpu.gpu_uuid, max(gpu.gpu_index) as gpu_index, max(gpu.instance) is not null as is_instance,
       holder.holder,
       shared.holders is not null as is_process_seen,
       sum(seconds / coalesce(holders, 1)) as held_seconds,
       sum(seconds / coalesce(holders, 1)) filter (where busy_percent is null) as unknown_seconds,
       sum(seconds / coalesce(holders, 1)) filter (where busy_percent < {least}) as idle_seconds,
       sum(joules / coalesce(holders, 1)) filter (where busy_percent < {least}) as idle_joules
from gpu
left join shared on gpu.host = shared.host and gpu.gpu_uuid = shared.gpu_uuid and gpu.bucket = shared.bucket
left join holder on gpu.host = holder.host and gpu.gpu_uuid = holder.gpu_uuid and gpu.bucket = holder.bucket
where shared.holders is not null or held_bytes >= {held_least}
group by gpu.host, gpu.gpu_uuid, holder.holder, is_process_seen
