-- How many rows of one kind in the window lack one column, by what they say about absence.
select {reasons} as reasons, count(*) as n
from {relation}
where {in_window} and {filter} and {column} is null
group by all
having n > 0 -- without a column of reasons there is nothing to group by, and a row even of nothing
