-- What each GPU's samples say that tells it from its peers: means of each bucket of time.
select host, gpu_uuid, max_by(gpu_index, (observed_at, seq)) as index_then, {bucket} as bucket,
       avg(utilization_percent) as utilization, avg(clock_sm_hertz) as clock, avg(temperature_celsius) as temperature,
       avg(power_watts) as power, avg(sm_active_ratio) as sm_active
from {relation}
where {in_window} and mig_gpu_instance_id is null
group by host, gpu_uuid, {bucket}
order by host, gpu_uuid, bucket
