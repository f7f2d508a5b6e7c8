-- The last event of one kind before a window and the first after it, in microseconds since the epoch; how many lie in it.
select
    max(case when observed_at < {start} then {epoch_us} end) as before_us,
    min(case when observed_at >= {end} then {epoch_us} end) as after_us,
    count(case when {in_window} then 1 end) as within_count
from {relation}
