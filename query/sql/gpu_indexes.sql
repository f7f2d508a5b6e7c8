-- The GPU indexes that occur in the window.
select distinct gpu_index
from {relation}
where {in_window} and gpu_index is not null
order by gpu_index
