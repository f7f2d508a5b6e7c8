-- The newest row of each series of one kind in the window.
select {columns}
from {relation}
where {in_window}
qualify row_number() over (partition by {keys} order by observed_at desc, seq desc) = 1
