-- A request by one of its names, the newest where several bear it.
select *
from {relation}
where {in_window} and {filter}
order by seq desc
limit 1
