-- The newest product name of each GPU that was ever described.
select gpu_uuid, max_by(name, seq) as name
from {relation}
where gpu_uuid is not null
group by gpu_uuid
