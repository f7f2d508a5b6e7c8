"""What SQL may be asked: every statement that an analyst would write on the views runs, and nothing else does."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from query import ad_hoc
from query.ad_hoc import run_sql
from query.errors import SqlFailedError, SqlRefusedError
from query.sandbox.guard import Judged, judged, referenced_kinds
from store.events import KINDS

# LEDGER and SEGMENT stand for the ledger's folder and one of its sealed files.

REFUSED: Mapping[str, Sequence[str]] = {
    "Only SELECT can be run, this is CREATE": (
        "create table t (a int)",
        "create table t as select 1",
        "create or replace view gpu_sample as select 1",
        "create temp view gpu_sample as select 1",
        "create macro count(x) as 42",
        "create sequence s",
        "create schema s",
        "create type mood as enum ('a')",
        "create index i on gpu_sample (seq)",
        "create persistent secret s (type http, bearer_token 'x')",
    ),
    "Only SELECT can be run, this is DROP": (
        "drop view gpu_sample",
    ),
    "Only SELECT can be run, this is ALTER": (
        "alter table gpu_sample add column x int",
    ),
    "Only SELECT can be run, this is COMMENT": (
        "comment on table gpu_sample is 'x'",
    ),
    "Only SELECT can be run, this is TRUNCATE": (
        "truncate gpu_sample",
    ),
    "Only SELECT can be run, this is INSERT": (
        "insert into gpu_sample values (1)",
    ),
    "Only SELECT can be run, this is UPDATE": (
        "update gpu_sample set seq = 1",
        "update extensions",
    ),
    "Only SELECT can be run, this is DELETE": (
        "delete from gpu_sample",
    ),
    "Only SELECT can be run, this is MERGE": (
        "merge into gpu_sample using request on true when matched then delete",
    ),
    "Only SELECT can be run, this is COPY": (
        "copy (select 1) to 'LEDGER/events/x.csv'",
        "copy gpu_sample to 'SEGMENT'",
        "copy gpu_sample from '/etc/passwd'",
        "copy from database memory to other",
        "copy (select 1) to 'x.csv'",
    ),
    "Only SELECT can be run, this is EXPORT": (
        "export database 'LEDGER/events/export'",
    ),
    "Only SELECT can be run, this is IMPORT": (
        "import database 'LEDGER/events'",
    ),
    "Only SELECT can be run, this is ATTACH": (
        "attach 'LEDGER/events/new.duckdb' as other",
    ),
    "Only SELECT can be run, this is DETACH": (
        "detach memory",
    ),
    "Only SELECT can be run, this is USE": (
        "use memory",
    ),
    "Only SELECT can be run, this is INSTALL": (
        "install httpfs",
    ),
    "Only SELECT can be run, this is FORCE": (
        "force install httpfs from 'http://127.0.0.1:1'",
        "force checkpoint",
    ),
    "Only SELECT can be run, this is LOAD": (
        "load httpfs",
        "load 'LEDGER/events/evil.duckdb_extension'",
    ),
    "Only SELECT can be run, this is SET": (
        "set enable_external_access = true",
        "set global threads = 64",
        "set variable a = 1",
    ),
    "Only SELECT can be run, this is RESET": (
        "reset threads",
    ),
    "Only SELECT can be run, this is PRAGMA": (
        "pragma version",
        "pragma enable_profiling",
        "pragma database_list",
    ),
    "Only SELECT can be run, this is CALL": (
        "call pragma_version()",
        "call enable_logging(storage = 'file')",
    ),
    "Only SELECT can be run, this is CHECKPOINT": (
        "checkpoint",
    ),
    "Only SELECT can be run, this is VACUUM": (
        "vacuum",
    ),
    "Only SELECT can be run, this is ANALYZE": (
        "analyze",
    ),
    "Only SELECT can be run, this is BEGIN": (
        "begin",
    ),
    "Only SELECT can be run, this is COMMIT": (
        "commit",
    ),
    "Only SELECT can be run, this is ROLLBACK": (
        "rollback",
    ),
    "Only SELECT can be run, this is PREPARE": (
        "prepare p as copy (select 1) to 'SEGMENT'",
    ),
    "Only SELECT can be run, this is EXECUTE": (
        "execute p",
    ),
    "Only SELECT can be run, this is DEALLOCATE": (
        "deallocate p",
    ),
    "Only SELECT can be run, this is EXPLAIN": (
        "explain select * from gpu_sample",
        "explain analyze select * from gpu_sample",
        "explain analyze copy (select 1) to 'SEGMENT'",
    ),
    "Only SELECT can be run, this holds COPY": (
        "with x as (copy (select 1) to 'SEGMENT') select 1",
        "with x as (copy gpu_sample to 'SEGMENT') select * from gpu_sample",
        "select * from (with x as (copy (select 1) to 'SEGMENT') select 1)",
        "select (with x as (copy (select 1) to 'SEGMENT') select 1)",
        "select 1 union all (with x as (copy (select 1) to 'SEGMENT') select 1)",
        "with recursive t(i) as (select 1 union all (with x as (copy (select 1) to 'SEGMENT') select i + 1 from t)) select * from t",
        "with x as (copy (select 1) to 'x.csv') from x",
    ),
    "Only SELECT can be run, this holds INSERT": (
        "with x as (insert into gpu_sample values (1) returning *) select * from x",
        "with a as (with b as (insert into request values (1) returning *) select * from b) select * from a",
    ),
    "Only SELECT can be run, this holds UPDATE": (
        "with x as (update gpu_sample set seq = 1 returning *) select * from x",
    ),
    "Only SELECT can be run, this holds DELETE": (
        "with x as (delete from gpu_sample returning *) select * from x",
        "with x as (truncate gpu_sample) select 1",
        "select 1 where exists (with x as (delete from gpu_sample returning *) select 1)",
    ),
    "The SQL cannot be parsed (Parser Error: A CTE body must be a SELECT, INSERT, UPDATE, DELETE, or COPY TO statement)": (
        "with x as (merge into gpu_sample using request on true when matched then delete) select 1",
    ),
    "This is 2 statements": (
        "select 1; select 2",
        "select 1; drop view gpu_sample",
        "select 1; copy (select 1) to 'SEGMENT'",
    ),
    "There is no SQL to run": (
        "; ;",
        "",
        "-- nothing",
        "/* nothing */",
    ),
    "There is no view '/etc/passwd'": (
        "select * from '/etc/passwd'",
        "select * from '/etc/passwd', (with \"/etc/passwd\" as (select 1) select 1)",
    ),
    "There is no view 'SEGMENT'": (
        "select * from 'SEGMENT'",
        'select * from "SEGMENT"',
    ),
    "There is no view 'http://127.0.0.1:1/x.parquet'": (
        "select * from 'http://127.0.0.1:1/x.parquet'",
    ),
    "There is no view 'LEDGER/events/**/*.parquet'": (
        "from 'LEDGER/events/**/*.parquet'",
    ),
    "The table function read_parquet is not available here": (
        "select * from read_parquet('SEGMENT')",
    ),
    "The table function parquet_scan is not available here": (
        "select * from parquet_scan('SEGMENT')",
    ),
    "The table function read_text is not available here": (
        "select * from read_text('/etc/passwd')",
        "select * from gpu_sample, lateral (select * from read_text('/etc/passwd'))",
        "select (select content from read_text('/etc/passwd'))",
    ),
    "The table function read_blob is not available here": (
        "select * from read_blob('/proc/self/environ')",
    ),
    "The table function read_csv is not available here": (
        "select * from read_csv('/etc/passwd')",
    ),
    "The table function read_csv_auto is not available here": (
        "select * from read_csv_auto('/etc/passwd')",
    ),
    "The table function sniff_csv is not available here": (
        "select * from sniff_csv('/etc/passwd')",
    ),
    "The table function read_json is not available here": (
        "select * from read_json('/etc/passwd')",
    ),
    "The table function read_ndjson_objects is not available here": (
        "select * from read_ndjson_objects('/etc/passwd')",
    ),
    "The table function read_duckdb is not available here": (
        "select * from read_duckdb('/etc/passwd')",
    ),
    "The table function glob is not available here": (
        "select * from glob('/etc/*')",
    ),
    "The table function parquet_metadata is not available here": (
        "select * from parquet_metadata('SEGMENT')",
    ),
    "The table function parquet_schema is not available here": (
        "select * from parquet_schema('SEGMENT')",
    ),
    "The table function parquet_kv_metadata is not available here": (
        "select * from parquet_kv_metadata('SEGMENT')",
    ),
    "The table function parquet_file_metadata is not available here": (
        "select * from parquet_file_metadata('SEGMENT')",
    ),
    "The table function parquet_bloom_probe is not available here": (
        "select * from parquet_bloom_probe('SEGMENT', 'seq', 1)",
    ),
    "The table function query is not available here": (
        "select * from query('select 1')",
    ),
    "The table function query_table is not available here": (
        "select * from query_table('gpu_sample')",
        "select * from query_table(['gpu_sample'])",
    ),
    "The table function json_execute_serialized_sql is not available here": (
        "select * from json_execute_serialized_sql('x')",
    ),
    "The table function duckdb_settings is not available here": (
        "select * from duckdb_settings()",
    ),
    "The table function duckdb_views is not available here": (
        "select * from duckdb_views()",
    ),
    "The table function duckdb_secrets is not available here": (
        "select * from duckdb_secrets()",
    ),
    "The table function duckdb_databases is not available here": (
        "select * from duckdb_databases()",
    ),
    "The table function duckdb_functions is not available here": (
        "select * from duckdb_functions()",
    ),
    "The table function pragma_table_info is not available here": (
        "select * from pragma_table_info('gpu_sample')",
    ),
    "The table function pragma_database_size is not available here": (
        "select * from pragma_database_size()",
    ),
    "The table function pragma_version is not available here": (
        "select * from pragma_version()",
    ),
    "The table function pandas_scan is not available here": (
        "select * from pandas_scan(1)",
    ),
    "The table function arrow_scan is not available here": (
        "select * from arrow_scan(1, 1, 1)",
    ),
    "The table function seq_scan is not available here": (
        "select * from seq_scan('gpu_sample')",
    ),
    "The table function test_all_types is not available here": (
        "select * from test_all_types()",
    ),
    "The table function repeat_row is not available here": (
        "select * from repeat_row(1, num_rows = 3)",
    ),
    "There is no view 'sqlite_master'": (
        "select * from sqlite_master",
        "select * from sqlite_master, (with sqlite_master as (select 1) select 1)",
        "describe sqlite_master",
        "summarize sqlite_master",
    ),
    "There is no view 'duckdb_views'": (
        "select * from duckdb_views",
        "select * from (with duckdb_views as (select 1) select 1), duckdb_views",
        'with "ducKdb_views" as (select 1) select * from duckdb_views',
    ),
    "There is no view 'pg_class'": (
        "select * from pg_class",
    ),
    "There is no view 'pg_settings'": (
        "select * from pg_catalog.pg_settings",
    ),
    "There is no view 'tables'": (
        "select * from information_schema.tables",
        "select * from system.information_schema.tables",
    ),
    "The views are in no schema": (
        "select * from main.gpu_sample",
        "select * from memory.main.gpu_sample",
        "select * from temp.main.gpu_sample",
    ),
    "There is no view 'x.parquet'": (
        'select * from "x.parquet", (with "x.parquet" as (select 1) select 1)',
    ),
    "There is no view '_gpu_sample_tail'": (
        "select * from _gpu_sample_tail",
    ),
    "There is no view 'gpu_samples'": (
        "select * from gpu_samples",
    ),
    "There is no view 'source'": (
        "select * from source",
    ),
    "There is no view 'snapshot'": (
        "select * from snapshot",
    ),
    "There is no view 'nothing_like_it'": (
        "select * from nothing_like_it",
    ),
    "Only SELECT, DESCRIBE and SUMMARIZE can be run": (
        "show tables",
        "show all tables",
        "show databases",
        "show gpu_sample",
        "describe",
    ),
    'The SQL cannot be parsed (Parser Error: syntax error at or near "(")': (
        "describe read_text('/etc/passwd')",
    ),
    "The function current_setting is not available here": (
        "select current_setting('memory_limit')",
        "select system.main.current_setting('memory_limit')",
        "select 'memory_limit'.current_setting()",
        "select list_transform(['a'], lambda x: current_setting(x))",
        "select * from range(current_setting('threads')::int)",
        "select count(*) from gpu_sample group by current_setting('threads')",
    ),
    "The function getvariable is not available here": (
        "select getvariable('a')",
        "select sum(getvariable('a')) over ()",
    ),
    "The function getenv is not available here": (
        "select getenv('HOME')",
    ),
    "The function current_query is not available here": (
        "select current_query()",
    ),
    "The function current_schemas is not available here": (
        "select current_schemas(true)",
    ),
    "The function txid_current is not available here": (
        "select txid_current()",
    ),
    "The function nextval is not available here": (
        "select nextval('s')",
    ),
    "The function write_log is not available here": (
        "select write_log('x')",
    ),
    "The function pg_sleep is not available here": (
        "select pg_sleep(1)",
    ),
    "The function sleep_ms is not available here": (
        "select sleep_ms(1000)",
    ),
    "The function pg_get_viewdef is not available here": (
        "select pg_get_viewdef(1)",
    ),
    "The function get_block_size is not available here": (
        "select get_block_size('memory')",
    ),
    "The function setseed is not available here": (
        "select setseed(0.5)",
    ),
    "The function in_search_path is not available here": (
        "select in_search_path('memory', 'main')",
    ),
    "The function json_serialize_plan is not available here": (
        "select json_serialize_plan('select 1')",
    ),
    "The function finalize is not available here": (
        "select finalize(to_aggregate_state('x'::blob))",
    ),
    "The function __internal_compress_string_ubigint is not available here": (
        "select __internal_compress_string_ubigint('x')",
    ),
    "The function avgg is not available here": (
        "select avgg(power_watts) from gpu_sample",
    ),
    "The function nothing_like_it is not available here": (
        "select nothing_like_it(1)",
    ),
    "A PIVOT must name its columns": (
        "pivot gpu_sample on gpu_index using avg(power_watts)",
        "select * from (pivot gpu_sample on gpu_index using avg(power_watts))",
        "with p as (pivot gpu_sample on gpu_index using avg(power_watts)) select * from p",
    ),
    "The SQL cannot be parsed (Parser Error: SELECT clause without selection list)": (
        "select",
    ),
    'The SQL cannot be parsed (Parser Error: syntax error at or near "where")': (
        "select * from gpu_sample where",
    ),
    'The SQL cannot be parsed (Parser Error: syntax error at or near "selec")': (
        "selec 1",
    ),
    "The SQL cannot be parsed (Parser Error: unterminated string literal)": (
        "select 'unfinished",
    ),
}  # fmt: skip

ANSWERED: Mapping[str, Sequence[tuple[Any, ...]]] = {
    "select count(*) from gpu_sample": [(20,)],
    "SELECT COUNT(*) FROM GPU_SAMPLE": [(20,)],
    'select count(*) from "Gpu_Sample"': [(20,)],
    "from gpu_sample select max(utilization_percent)": [(91,)],
    "from annotation": [],
    "table server_sample": [],
    "select count(*) from process_sample": [(0,)],
    "values (1, 'a'), (2, 'b')": [(1, "a"), (2, "b")],
    "select 1;": [(1,)],
    "select 1 -- ; drop view gpu_sample": [(1,)],
    "/* copy (select 1) to 'x' */ select 1": [(1,)],
    "select 'copy gpu_sample to ''x''; drop view request' as text": [("copy gpu_sample to 'x'; drop view request",)],
    "select '🔥', 'größe' as \"größe\"": [("🔥", "größe")],
    'select count(*) as "select * from sqlite_master" from request': [(4,)],
    "(select 1 union all select 2) order by 1 desc": [(2,), (1,)],
    "select host, gpu_index, min(seq) from gpu_sample group by all order by all": [("node", 0, 1), ("node", 1, 2)],
    "select gpu_index, count(*) filter (where utilization_percent >= 50) from gpu_sample group by 1 order by 1": [(0, 5), (1, 5)],
    "select gpu_index, sum(power_watts) from gpu_sample group by rollup (gpu_index) order by 1 nulls last": [(0, 1000.0), (1, 2000.0), (None, 3000.0)],
    "select status, count(*) as n from request group by status having count(*) > 1": [("ok", 3)],
    "select distinct on (gpu_index) gpu_index, utilization_percent from gpu_sample order by gpu_index, seq desc": [(0, 90), (1, 91)],
    "select seq from gpu_sample order by seq limit 2 offset 3": [(4,), (5,)],
    "select count(*) from (select * from gpu_sample limit 10%)": [(2,)],
    "select duration_seconds from request order by duration_seconds desc nulls last limit 1": [(2.0,)],
    "select gpu_index, utilization_percent from gpu_sample qualify row_number() over (partition by gpu_index order by observed_at desc) = 1 order by 1": [(0, 90), (1, 91)],
    "select distinct gpu_index, max(utilization_percent) over (partition by gpu_index) from gpu_sample order by 1": [(0, 90), (1, 91)],
    "select utilization_percent - lag(utilization_percent) over w as step from gpu_sample where gpu_index = 0 window w as (order by observed_at) order by observed_at limit 2": [(None,), (10,)],
    "select avg(utilization_percent) over (order by observed_at range between interval 2 seconds preceding and current row) from gpu_sample where gpu_index = 0 order by observed_at limit 3": [(0.0,), (5.0,), (10.0,)],
    "select ntile(2) over (order by seq), rank() over (order by status), first_value(status ignore nulls) over (order by seq) from request order by seq limit 1": [(1, 2, "ok")],
    "with busy as (select * from gpu_sample where utilization_percent > 80) select count(*) from busy": [(3,)],
    "with a as materialized (select 1 as x), b as not materialized (select x + 1 as x from a) select * from b": [(2,)],
    "with gpu_sample as (select 7 as x) select * from gpu_sample": [(7,)],
    'with "per gpu" as (select gpu_index, count(*) as n from gpu_sample group by 1) select sum(n) from "per gpu"': [(20,)],
    "with Busy as (select 1 as x) select * from bUSY": [(1,)],
    "with recursive t(i) as (select 1 union all select i + 1 from t where i < 4) select list(i order by i) from t": [([1, 2, 3, 4],)],
    "with recursive hops(i) as (values (0) union select (i + 3) % 7 from hops) select count(*) from hops": [(7,)],
    "select r.status, g.utilization_percent from request r asof join gpu_sample g on r.observed_at >= g.observed_at and g.gpu_index = 1 order by r.seq limit 2": [("ok", 21), ("ok", 41)],
    "select count(*) from request r asof left join gpu_event e on r.observed_at >= e.observed_at where e.event is null": [(2,)],
    "select s.cpu_utilization_percent from gpu_event e join system_sample s using (observed_at) order by 1": [(5.0,), (7.0,)],
    "select count(*) from gpu_sample g semi join gpu_event e on g.observed_at = e.observed_at": [(4,)],
    "select count(*) from gpu_sample g anti join gpu_event e on g.observed_at = e.observed_at": [(16,)],
    "select * from (values (1), (2)) a(x) positional join (values ('p')) b(y)": [(1, "p"), (2, None)],
    "select count(*) from request cross join gpu_event": [(8,)],
    "select r.seq, e.n from request r, lateral (select count(*) as n from gpu_event e where e.observed_at < r.observed_at) e order by 2 desc, 1 limit 1": [(34, 2)],
    "select (select max(utilization_percent) from gpu_sample g where g.observed_at <= r.observed_at) from request r order by seq limit 1": [(21,)],
    "select exists (select 1 from gpu_event where event = 'throttle_begin'), 2 in (select 2), 3 = any (select 3), array(select 4)": [(True, True, True, [4])],
    "select count(*) from gpu_sample tablesample 100%": [(20,)],
    "select count(*) from (select * from gpu_sample using sample 5 rows)": [(5,)],
    "select count(*) from gpu_sample using sample reservoir(7 rows) repeatable (1)": [(7,)],
    "pivot (select gpu_index, power_watts from gpu_sample) on gpu_index in (0, 1) using avg(power_watts)": [(100.0, 200.0)],
    "from (select gpu_index, power_watts from gpu_sample) pivot (max(power_watts) as w for gpu_index in (0, 1))": [(100.0, 200.0)],
    "unpivot (select 1 as a, 2 as b) on a, b into name n value v": [("a", 1), ("b", 2)],
    "select n, v from (select 1 as a, null as b) unpivot include nulls (v for n in (a, b))": [("a", 1), ("b", None)],
    "select column_name from (describe annotation) limit 3": [("seq",), ("observed_at",), ("host",)],
    "describe select seq from request": [("seq", "BIGINT", "YES", None, None, None)],
    "select column_name, count, max from (summarize select utilization_percent from gpu_sample)": [("utilization_percent", 20, "91")],
    "summarize select 1 as x from annotation": [("x", "INTEGER", None, None, 0, None, None, None, None, None, 0, None)],
    "select columns('^(power_watts|gpu_index)$') from gpu_sample order by seq limit 1": [(0, 100.0)],
    "select * exclude (seq) replace (1 as host) from (select seq, host from request) limit 1": [(1,)],
    "select absence ->> 'fan_speed_percent' as reason, count(*) from gpu_sample group by 1 order by 1 nulls last": [("not_supported", 10), (None, 10)],
    "select j.key, j.value ->> '$', count(*) from gpu_sample, json_each(absence) j group by all": [("fan_speed_percent", "not_supported", 10)],
    "select json_extract_string(absence, '$.fan_speed_percent'), json_keys(absence), absence.json_valid() from gpu_sample where absence is not null limit 1": [("not_supported", ["fan_speed_percent"], True)],
    "select to_json({'a': 1}), json_object('b', 2), '{\"x\": [1, 2]}'::json -> 'x' ->> 1": [('{"a":1}', '{"b":2}', "2")],
    "select gpu_uuids[1], len(gpu_uuids), list_contains(gpu_uuids, 'GPU-1') from request order by seq limit 2": [("GPU-0", 1, False), ("GPU-0", 2, True)],
    "select unnest(gpu_uuids) as uuid, count(*) from request group by 1 order by 1": [("GPU-0", 2), ("GPU-1", 1)],
    "select u.uuid from request, unnest(gpu_uuids) as u(uuid) order by seq desc, 1 limit 1": [("GPU-0",)],
    "select list_transform([1, 2], lambda x: x * 10), list_filter([1, 2, 3], lambda x: x > 1), [x + 1 for x in [1, 2] if x > 1], list_reduce([1, 2, 3], lambda a, b: a + b)": [([10, 20], [2, 3], [3], 6)],
    "select {'a': 1, 'b': 'x'}.b, map {'k': 5}['k'], struct_pack(y := 2).y, row(1, 2), [3, 4][-1], [1, 2, 3][2:]": [("x", 5, 2, {"element1": 1, "element2": 2}, 4, [2, 3])],
    "select date_trunc('hour', min(observed_at)) = timestamptz '2026-11-22 08:00:00+00' from gpu_sample": [(True,)],
    "select time_bucket(interval '5 seconds', observed_at)::varchar as t, count(*) from gpu_sample group by t order by t": [("2026-11-22 08:00:00+00", 10), ("2026-11-22 08:00:05+00", 10)],
    "select extract(second from max(observed_at)), date_part('minute', max(observed_at)), year(max(observed_at)), dayname(max(observed_at)) from gpu_sample": [(9, 0, 2026, "Sunday")],
    "select strftime(min(observed_at), '%H:%M'), (min(observed_at) at time zone 'Asia/Kathmandu')::varchar, epoch(min(observed_at)), epoch_us(min(observed_at)) from gpu_sample": [("08:00", "2026-11-22 13:45:00", 1795334400.0, 1795334400000000)],
    "select (max(observed_at) - min(observed_at))::varchar, date_diff('second', min(observed_at), max(observed_at)), max(observed_at) + interval 1 day > max(observed_at) from gpu_sample": [("00:00:09", 9, True)],
    "select count(*) from gpu_sample where observed_at between '2026-11-22 08:00:03+00' and timestamptz '2026-11-22 08:00:04+00'": [(4,)],
    "select now() > timestamptz '2020-01-01 00:00+00', current_timestamp = now(), current_date >= date '2020-01-01', random() < 1, length(uuid()::varchar)": [(True, True, True, True, 36)],
    "select make_timestamptz(1000000)::varchar, to_timestamp(60)::varchar, make_date(2026, 11, 22)::varchar, strptime('2026', '%Y')::varchar": [("1970-01-01 00:00:01+00", "1970-01-01 00:01:00+00", "2026-11-22", "2026-01-01 00:00:00")],
    "select count(*) from range(timestamp '2026-01-01', timestamp '2026-01-02', interval 1 hour) r(t) left join annotation a on false": [(24,)],
    "select sum(i) from range(5) t(i)": [(10,)],
    "select list(g) from generate_series(1, 3) s(g)": [([1, 2, 3],)],
    "select generate_series(1, 3), range(2), generate_subscripts([7, 8], 1) limit 1": [([1, 2, 3], [0, 1], 1)],
    "select quantile_cont(utilization_percent, [0.5, 0.9]), quantile_disc(utilization_percent, 0.5), median(utilization_percent), percentile_cont(0.5) within group (order by utilization_percent) from gpu_sample where gpu_index = 0": [([45.0, 81.0], 40, 45.0, 45.0)],
    "select round(stddev_samp(utilization_percent), 3), var_pop(power_watts), round(corr(utilization_percent, seq), 6), round(regr_slope(utilization_percent, utilization_percent), 6), mad(utilization_percent), mode(status) from gpu_sample full join request using (seq) where gpu_index = 0 or status is not null": [(30.277, 0.0, 1.0, 1.0, 25.0, "ok")],
    "select arg_max(status, duration_seconds), max_by(seq, duration_seconds) > 0, min_by(status, seq), first(status order by seq), last(status order by seq), any_value(service), string_agg(status, ',' order by seq), list(duration_seconds order by seq) from request": [("ok", True, "ok", "ok", "ok", "vllm", "ok,ok,error,ok", [0.5, 1.0, 1.5, 2.0])],
    "select histogram(status), bool_and(duration_seconds > 0), bit_or(1), product(duration_seconds), approx_count_distinct(status), count_if(status = 'ok'), sum(distinct duration_seconds), round(entropy(status), 3) from request": [([("error", 1), ("ok", 3)], True, 1, 1.5, 2, 3, 5.0, 0.811)],
    "select case status when 'ok' then 1 else 0 end, coalesce(null, error_type, 'none'), ifnull(null, 2), nullif(1, 1), if(true, 'y', 'n'), try_cast('x' as int), try(1 // 0) from request order by seq limit 1": [(1, "none", 2, None, "y", None, None)],
    "select host like 'n%', host ilike 'N_DE', host ~ 'no.*', host similar to '.*de', regexp_extract(host, '(o.)', 1), regexp_replace(host, '[aeiou]', '', 'g'), host glob 'n*' from request limit 1": [(True, True, True, True, "od", "nd", True)],
    "select upper(host), host.upper().left(2), host[1:2], host || '!', concat_ws('-', host, 1), split_part('a-b', '-', 2), string_split('a,b', ','), trim('  x '), lpad('7', 2, '0'), format('{:.1f}', 2.25), printf('%03d', 7), length(host), md5('x') from request limit 1": [("NODE", "NO", "no", "node!", "node-1", "b", ["a", "b"], "x", "07", "2.2", "007", 4, "9dd4e461268c8034f5c8564e155c67a6")],
    "select format_bytes(1536), bar(5, 0, 10, 4), 1_000, 1e3, 7 // 2, 7 % 2, 2 ** 3, 5 & 4, 1 << 3, -(-1), abs(-2), greatest(1, 2), least(1, 2), round(2.5), ceil(1.2), log2(8), pi() > 3": [("1.5 KiB", "██  ", 1000, 1000.0, 3, 1, 8.0, 4, 8, 1, 2, 2, 1, 3, 2, 3.0, True)],
    "select 1::decimal(5, 2), 'x'::blob, true::int, [1]::bigint[], '2026-11-22'::date::varchar, 5::varchar, cast('1' as utinyint), (interval 90 minute)::varchar": [(1, b"x", 1, [1], "2026-11-22", "5", 1, "01:30:00")],
    "select a: 1, b: a + 1": [(1, 2)],
    "select seq as s, s + 1 as next from request order by s limit 0": [],
    "select 1 union select 1 union all select 2 intersect select 2 except select 3 order by 1": [(1,), (2,)],
    "select count(*), $$it's$$, e'\\t' from inventory": [(0, "it's", "\t")],
    "select current_user is not null, current_catalog is not null": [(True, True)],
    "select distinct status from request order by all": [("error",), ("ok",)],
    "select grouping(gpu_index), count(*) from gpu_sample group by grouping sets ((gpu_index), ()) order by 1, 2": [(0, 10), (0, 10), (1, 20)],
    "select #1 from (select 5)": [(5,)],
    "select coalesce(sum(duration_seconds), 0) from request where service = 'nobody'": [(0.0,)],
    "select (1, 2) = (1, 2), 1 is distinct from null, not true, null is null, 2 between 1 and 3, 1 in (1, 2)": [(True, True, False, True, True, True)],
    "select typeof(power_watts), typeof(g.observed_at), typeof(energy_joules), typeof(gpu_uuids) from gpu_sample g, request limit 1": [("FLOAT", "TIMESTAMP WITH TIME ZONE", "DECIMAL(18,3)", "VARCHAR[]")],
    "select count(columns(lambda c: c like 'utilization_p%')) from gpu_sample": [(20,)],
    "select min(columns(['seq', 'gpu_index'])) from gpu_sample": [(1, 0)],
    "select seq, gpu_index.abs() from gpu_sample order by seq limit 1": [(1, 0)],
    "select count(*) from gpu_sample g where g.observed_at > (select max(observed_at) from request) - interval '1 second'": [(4,)],
    "select count(*) from gpu_sample as of_now where of_now.up": [(20,)],
    "select r.* exclude (r.seq) from (select seq, status from request order by seq limit 1) r": [("ok",)],
    "select count(*) from request r left join gpu_sample g on list_contains(r.gpu_uuids, g.gpu_uuid)": [(32,)],
}  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def segment(folder: Path) -> Path:
    return next(folder.glob("events/gpu_sample/**/*.parquet"))


@pytest.fixture
def ask(machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs a statement in an empty working folder, and sees that nothing came or changed anywhere."""
    monkeypatch.chdir(tmp_path)

    def asked(statement: str) -> list[tuple[Any, ...]]:
        sql = in_place(statement, machine.folder)
        table = run_sql(machine.source, sql, rows_max=1_000, time_limit_s=30).table
        return list(zip(*table.to_pydict().values(), strict=True))

    machine.source.reader().close()  # SQLite makes its files for readers now, if it has to
    before = contents(machine.folder)
    yield asked
    assert (contents(machine.folder), list(tmp_path.iterdir())) == (before, [])


def in_place(statement: str, folder: Path) -> str:
    return statement.replace("LEDGER", str(folder)).replace("SEGMENT", str(segment(folder)))


@pytest.mark.parametrize(("statement", "rows"), ANSWERED.items(), ids=ANSWERED)
def test_what_an_analyst_asks_is_answered(ask, statement, rows):
    assert ask(statement) == rows


@pytest.mark.parametrize(
    ("statement", "problem"), [(statement, problem) for problem, group in REFUSED.items() for statement in group]
)
def test_whatever_else_is_refused_in_one_sentence_and_changes_nothing(ask, machine, statement, problem):
    with pytest.raises(SqlRefusedError) as refused:
        ask(statement)
    assert refused.value.problem == in_place(problem, machine.folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("statement", "hint"),
    [
        ("select * from gpu_samples", "did you mean 'gpu_sample'?"),
        ("select * from nothing_like_it", f"the views are {', '.join(KINDS)}"),
        ("select * from main.gpu_sample", "write gpu_sample alone"),
        ("select avgg(1)", "did you mean 'avg'?"),
        ("select current_setting('threads')", "it is more than a function of its arguments"),
        ("select zzz(1)", "use DuckDB's scalar and aggregate functions"),
        ("pivot gpu_sample on gpu_index using avg(seq)", "write it as in PIVOT … ON gpu_index IN (0, 1) …"),
        ("select 1; select 2", "send one SELECT at a time"),
        ("drop view request", "ask with one SELECT over the views; nothing here writes"),
        ("with x as (delete from request) select 1", "ask with one SELECT over the views; nothing here writes"),
        ("", "send a SELECT, such as 'select count(*) from gpu_sample'"),
        ("selec 1", "correct it at that place"),
    ],
)
def test_a_refusal_says_what_to_do(statement, hint):
    with pytest.raises(SqlRefusedError) as refused:
        referenced_kinds(statement)
    assert refused.value.hint == hint


@pytest.mark.parametrize(
    ("statement", "kinds"),
    [
        ("select 1", ()),
        ("select * from Request", ("request",)),
        ("with a as (select * from gpu_sample) select * from a, inventory", ("gpu_sample", "inventory")),
        ("select (select max(seq) from annotation) from (from gpu_event)", ("annotation", "gpu_event")),
        ("describe process_sample", ("process_sample",)),
        ("select 'gpu_sample' as request", ()),
    ],
)
def test_only_the_kinds_that_are_read_are_published(statement, kinds):
    assert sorted(referenced_kinds(statement)) == sorted(kinds)


COMMON = {"seq", "observed_at", "host", "boot_id"}
NAMED = {
    "select power_watts from gpu_sample": {"power_watts"},
    "select Power_Watts, g.gpu_index.abs() from gpu_sample g": {"power_watts", "gpu_index"},
    "select count(*) from gpu_sample": set(),
    "select max(gpu_sample.seq) from gpu_sample join request using (host) where gpu_index.abs() = 0": {"gpu_index"},
    "with x as (select seq as power_watts from gpu_sample) select power_watts from x": {"power_watts"},
    "select seq as gpu_sample from gpu_sample": set(),
    "select s from (select gpu_index as s from gpu_sample) g order by all": {"gpu_index"},
    "select list(power_watts order by temperature_celsius) filter (up) over (partition by gpu_uuid) from gpu_sample": {
        *("power_watts", "temperature_celsius", "up", "gpu_uuid")
    },
}
UNNAMED = [
    "from gpu_sample",
    "select gpu_sample.* from gpu_sample",
    "select * exclude (host) from gpu_sample",
    "select columns('power.*') from gpu_sample",
    "select g from gpu_sample g",
    "select gpu_sample from gpu_sample",
    "select g.to_json() from gpu_sample g",
    "select count(g) from gpu_sample g",
    "select #7 from gpu_sample",
    "select seq from gpu_sample natural join request",
    "select w from gpu_sample g(a, b, c, d, e, f, w)",
    "describe gpu_sample",
    "summarize gpu_sample",
    "unpivot gpu_sample on power_watts, temperature_celsius",
    "select exists (select * from gpu_sample)",
    "select seq from gpu_sample order by columns('power.*')",
]


@pytest.mark.parametrize(("statement", "columns"), NAMED.items())
def test_only_the_columns_that_are_named_are_bound(statement, columns):
    assert set(ad_hoc._columns("gpu_sample", judged(statement))) == COMMON | columns


@pytest.mark.parametrize("statement", UNNAMED)
def test_where_columns_are_read_without_their_names_all_are_bound(statement):
    assert ad_hoc._columns("gpu_sample", judged(statement)) is None


@pytest.mark.parametrize("statement", [*NAMED, *UNNAMED[3:12]])
def test_an_answer_is_the_same_with_the_named_columns_as_with_all(ask, statement, monkeypatch):
    asked = ask(statement)
    monkeypatch.setattr(ad_hoc, "judged", lambda sql: Judged(judged(sql).kinds, None))
    assert sorted(map(repr, ask(statement))) == sorted(map(repr, asked))


@pytest.mark.parametrize(
    "statement",
    [
        "select " + "abs(" * 900 + "1" + ")" * 900,
        "select * from (" * 5_000 + "select 1" + ")" * 5_000,
        "select " + "[" * 20_000 + "]" * 20_000,
        "select " + "-(" * 20_000 + "1" + ")" * 20_000,
        "select '\ud800'",
        "select 1\x00; drop view request",
    ],
    ids=["calls", "subqueries", "lists", "signs", "half a character", "a zero byte"],
)
def test_text_that_no_tree_can_be_made_of_is_refused(statement):
    with pytest.raises(SqlRefusedError) as refused:
        referenced_kinds(statement)
    assert len(str(refused.value)) < 600


def test_a_long_query_is_no_reason_to_refuse_it(ask):
    assert ask(f"select count(*) from ({' union all '.join(['select 1'] * 2_000)})") == [(2_000,)]
    assert ask(f"select {' or '.join(['seq = 1'] * 2_000)} from request limit 1") == [(False,)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_view_with_its_declared_columns(ask, kind):
    columns = [row[0] for row in ask(f"describe {kind}")]
    assert columns == [column.name for column in KINDS[kind].columns]


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_text('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from glob('/etc/*')",
        "copy (select 1) to '/tmp/gpuledger-was-here.csv'",
        "copy (select 1) to 'x.csv'",
        "attach 'x.duckdb' as x",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set memory_limit = '20GB'",
        "set temp_directory = '/tmp'",
        "select * from machine",
        "select * from read_parquet('LEDGER/head.sqlite')",
        "select * from read_blob('LEDGER/events/../head.sqlite')",
    ],
)
def test_even_past_the_guard_nothing_outside_the_sealed_files_is_within_reach(ask, statement, monkeypatch):
    monkeypatch.setattr(ad_hoc, "judged", lambda _: Judged(("gpu_sample",), None))
    with pytest.raises(SqlFailedError):
        ask(statement)


def test_of_the_functions_that_duckdb_calls_volatile_only_clock_and_chance_are_let_through():
    with duckdb.connect(":memory:") as connection:
        rows = connection.sql("select function_name from duckdb_functions() where stability <> 'CONSISTENT'").fetchall()
    let_through = set()
    for (name,) in rows:
        with suppress(SqlRefusedError):
            referenced_kinds(f"select {name}()")
            let_through.add(name)
    assert let_through == {
        *("current_date", "get_current_time", "get_current_timestamp", "now", "today", "transaction_timestamp"),
        *("error", "gen_random_uuid", "random", "uuid", "uuidv4", "uuidv7"),
    }
