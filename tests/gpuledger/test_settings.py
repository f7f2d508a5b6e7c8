"""The settings: what wins, what is refused, where each value came from."""

import json
from pathlib import Path

import pytest

from gpuledger.settings import RetentionSection, load_origins, load_settings, setting_fields, setting_words
from store.errors import UsageError
from store.events import KINDS


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "GPULEDGER_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


def settings_file(home: Path, text: str) -> Path:
    path = home / ".config/gpuledger/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_each_kind_of_event_can_be_given_an_age_of_its_own():
    own = [name.removesuffix("_max_age_days") for name in RetentionSection.model_fields if "_max_age" in name]
    assert sorted(own) == sorted(KINDS)


def test_without_any_source_the_defaults_are_in_force(tmp_path):
    settings = load_settings()
    assert settings.data == tmp_path / ".local/share/gpuledger"
    assert settings.collector.model_dump() == {
        "host": "127.0.0.1",
        "port": 9465,
        "sample_interval_s": 1.0,
        "seal_interval_s": 120.0,
        "low_space_bytes": 500_000_000,
        "read_only_space_bytes": 100_000_000,
        "source": "nvml",
        "demo_seed": 0,
        "replay_loop": False,
    }
    assert settings.mcp.port == 9466


def test_a_flag_beats_the_environment_and_that_beats_the_file(tmp_path, monkeypatch):
    path = settings_file(
        tmp_path, "log_level = 'debug'\n[collector]\nport = 1001\nsample_interval_s = 2\n[mcp]\nport = 1004\n"
    )
    monkeypatch.setenv("GPULEDGER_COLLECTOR__PORT", "1002")
    monkeypatch.setenv("GPULEDGER_MCP__PORT", "1005")
    origins = {one.name: (one.value, one.origin) for one in load_origins({"mcp.port": 1006})}
    assert origins["log_level"] == ("debug", str(path))
    assert origins["collector.sample_interval_s"] == (2.0, str(path))
    assert origins["collector.port"] == (1002, "environment")
    assert origins["mcp.port"] == (1006, "flag")
    assert origins["collector.host"] == ("127.0.0.1", "default")


def test_a_named_file_is_read_instead_of_the_usual_ones(tmp_path, monkeypatch):
    settings_file(tmp_path, "log_level = 'debug'")
    named = tmp_path / "named.toml"
    named.write_text("[collector]\nport = 7\n")
    assert load_settings(config=named).log_level == "info"
    monkeypatch.setenv("GPULEDGER_CONFIG", str(named))
    assert load_settings().collector.port == 7


def test_the_data_folder_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/data")
    assert load_settings().data == Path("/srv/data/gpuledger")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # to be ignored, by the specification
    assert load_settings().data == tmp_path / ".local/share/gpuledger"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[colector]\nport = 1\n", "The setting colector.port from {path} is unknown: did you mean 'collector.port'?"),
        ("[collector]\nprot = 1\n", "The setting collector.prot from {path} is unknown: did you mean 'collector.port'?"),
        ("[collector]\nport = 'x'\n", "The setting collector.port from {path} cannot be 'x': input should be a valid integer, unable to parse string as an integer"),
        ("[collector]\nport = 99999\n", "The setting collector.port from {path} cannot be 99999: input should be less than or equal to 65535"),
        ("collector = 3\n", "The setting collector from {path} is unknown: did you mean 'collector.host'?"),
        ("port = [\n", "The settings file {path} is damaged (Invalid value (at end of document)): correct it there, or move it aside"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence_that_names_it(tmp_path, text, sentence):
    path = settings_file(tmp_path, text)
    with pytest.raises(UsageError) as refusal:
        load_settings()
    assert str(refusal.value) == sentence.format(path=path)


def test_a_file_that_is_no_text_is_called_damaged(tmp_path):
    path = settings_file(tmp_path, "")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is damaged"):
        load_settings()


def test_an_unknown_variable_of_our_prefix_is_refused_with_the_nearest(monkeypatch):
    monkeypatch.setenv("GPULEDGER_COLECTOR__PORT", "1")
    with pytest.raises(UsageError) as refusal:
        load_settings()
    assert str(refusal.value) == (
        "The environment variable GPULEDGER_COLECTOR__PORT names no setting: did you mean 'GPULEDGER_COLLECTOR__PORT'?"
    )


def test_every_setting_has_a_help_and_a_number_that_is_no_count_its_unit():
    for name, field in setting_fields():
        assert field.description, name
        if field.annotation is float:
            assert name.endswith(("_s", "_days", "_ratio")), name


def test_servers_to_scrape_are_tables_of_the_file(tmp_path):
    settings_file(
        tmp_path,
        "[[scrape]]\nurl = 'http://127.0.0.1:8000/metrics'\nservice = 'chat'\ntoken_file = '/run/token'\n[[scrape]]\nurl = 'https://[::1]:1'\n",
    )
    none = {"service": None, "token_file": None, "headers_file": None}
    assert [one.model_dump(mode="json") for one in load_settings().scrape] == [
        {**none, "url": "http://127.0.0.1:8000/metrics", "service": "chat", "token_file": "/run/token"},
        {**none, "url": "https://[::1]:1"},
    ]
    assert setting_words(load_settings().scrape) == [
        "url=http://127.0.0.1:8000/metrics service=chat token_file=/run/token",
        "url=https://[::1]:1",
    ]
    assert (setting_words(()), setting_words(9465)) == (["none"], ["9465"])


def test_config_has_a_line_for_each_server_and_not_what_its_files_hold(gpuledger):
    token = gpuledger.home / "token"
    token.write_text("s3cret")
    file = gpuledger.home / "c.toml"
    file.write_text(f"[[scrape]]\nurl = 'http://a:1'\ntoken_file = '{token}'\n[[scrape]]\nurl = 'http://b:2'\n")
    told = gpuledger("config", "--config", str(file), "--json", "--origin").stdout
    lines = [row["value"] for row in json.loads(told) if row["setting"] == "scrape"]
    assert lines == [f"url=http://a:1 token_file={token}", "url=http://b:2"]
    assert "s3cret" not in told


def test_servers_to_scrape_come_as_json_from_the_environment(monkeypatch):
    monkeypatch.setenv("GPULEDGER_SCRAPE", '[{"url": "http://127.0.0.1:8000"}]')
    assert [one.url for one in load_settings().scrape] == ["http://127.0.0.1:8000"]


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://x:99999", "http://me:secret@x"])
def test_what_is_no_url_of_a_server_is_refused_with_its_place(tmp_path, url):
    path = settings_file(tmp_path, f"[[scrape]]\nurl = '{url}'\n")
    with pytest.raises(UsageError) as raised:
        load_settings()
    assert str(raised.value) == (
        f"The setting scrape.0.url from {path} cannot be {url!r}: "
        "write it as http://127.0.0.1:8000/metrics, without a password"
    )
