-- Requests that bear a name: there are few.
select *
from {relation}
where {in_window} and {column} = {name}
