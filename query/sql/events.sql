-- The events of one kind in the window, in the order in which they were recorded.
select *
from {relation}
where {in_window}
order by seq
