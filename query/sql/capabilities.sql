-- The driver calls of each GPU and MIG device as they were described last.
select gpu_index, gpu_uuid, max_by(name, seq) as name, max(observed_at) as recorded_at, max_by(capabilities, seq) as capabilities
from {relation}
where subject in ('gpu', 'mig') and capabilities is not null
group by gpu_index, gpu_uuid
order by gpu_index, gpu_uuid
