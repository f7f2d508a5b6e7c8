-- The newest events of one kind in the window, without its samples.
select seq, observed_at, {columns}
from {relation}
where {in_window} and {filter}
order by seq desc
limit {top}
