-- The operations and models of a window, those with most requests first.
select operation, model, count(*) as n
from {relation}
where {in_window} and {filter} and duration_seconds is not null
group by all
order by n desc, operation, model
limit {top}
