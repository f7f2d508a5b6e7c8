-- The newest reading of each GPU's energy counter, and its mean power, in each bucket of time of each run of the counter.
select host, gpu_uuid, max_by(gpu_index, (observed_at, seq)) as index_then, boot_id, counter_epoch,
       max(observed_at) filter (where energy_joules is not null) as energy_at, max(energy_joules) as energy,
       max(observed_at) filter (where power_watts is not null) as power_at, avg(power_watts) as power
from {relation}
where {in_window} and (energy_joules is not null or power_watts is not null)
group by host, gpu_uuid, boot_id, counter_epoch, {bucket}
order by max(observed_at)
