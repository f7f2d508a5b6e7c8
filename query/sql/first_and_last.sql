-- When the first and the last event of one kind in the window was observed, in microseconds since the epoch.
select min({epoch_us}) as first_us, max({epoch_us}) as last_us
from {relation}
where {in_window}
