-- The GPU indexes that occur in the window, from its cells per minute and per hour and the events that are in no cell.
select distinct gpu_index
from (
    select gpu_index from {relation} where {in_window} and {not_rolled}
    union all
    select name as gpu_index from {minute_cells} where {in_minute_cells}
    union all
    select name as gpu_index from {hour_cells} where {in_hour_cells}
)
where gpu_index is not null
order by gpu_index
