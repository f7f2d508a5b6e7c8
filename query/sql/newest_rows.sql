-- The newest row of each series of one kind in the window.
select *
from {relation}
where observed_at >= {start} and observed_at < {end}
qualify row_number() over (partition by {keys} order by observed_at desc, seq desc) = 1
