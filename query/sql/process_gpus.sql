-- Which GPUs each process was seen on.
select distinct host, pid, gpu_uuid
from {relation}
where {in_window}
