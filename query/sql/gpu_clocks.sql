-- The highest SM clock and the product name of each GPU, as it was last described.
select gpu_uuid, max_by(name, seq) as name, max_by(clock_sm_maximum_hertz, seq) as clock_sm_maximum_hertz
from {relation}
where gpu_uuid is not null
group by gpu_uuid
