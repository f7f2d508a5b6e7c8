-- What was sampled of some devices, in order of time.
select {columns}
from {relation}
where {in_window} and {filter}
order by observed_at, seq
