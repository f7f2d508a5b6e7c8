-- What each process used of each GPU in the window.
select host, pid, started_at, gpu_uuid,
       max_by(gpu_index, seq) as gpu_index,
       max_by(name, seq) as name,
       max_by(command, seq) as command,
       max_by(user, seq) as user,
       max_by(coalesce(container_name, container_id), seq) as container,
       max(memory_used_bytes) as gpu_memory_bytes,
       avg(sm_utilization_percent) as sm_utilization_percent,
       sum(sm_utilization_percent / 100.0 * coalesce(interval_seconds, 5.0)) as gpu_seconds,
       max(host_memory_bytes) as host_memory_bytes,
       max(cpu_seconds) - min(cpu_seconds) as cpu_seconds,
       max_by(coalesce(interval_seconds, 5.0), seq) as interval_seconds,
       min(observed_at) as first_at,
       max(observed_at) as last_at
from {relation}
where {in_window} and {filter}
group by host, pid, started_at, gpu_uuid
