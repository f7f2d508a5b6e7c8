-- The mean device memory of each process on each GPU in each bucket of time.
select host, gpu_uuid, pid, started_at, max(gpu_index) as gpu_index, max(name) as name, max("user") as owner,
       {bucket} as bucket, avg(memory_used_bytes) as memory_bytes, max(observed_at) as newest_at
from {relation}
where {in_window} and memory_used_bytes is not null
group by host, gpu_uuid, pid, started_at, {bucket}
order by host, gpu_uuid, pid, started_at, bucket
