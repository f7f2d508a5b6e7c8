-- How many rows of the window have each column.
select {counts}
from {relation}
where {in_window}
