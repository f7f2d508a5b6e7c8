"""The generated reference pages."""

from pathlib import Path

from gpuledger.hardware import hardware_page
from gpuledger.settings import ENV_PREFIX, Settings, setting_fields
from store.derivations import events_page
from store.xid import xid_page


def reference_pages() -> dict[str, str]:
    """File name in docs/reference to text."""
    return {
        "events.md": events_page(),
        "hardware.md": hardware_page(),
        "mcp.md": _mcp_page(),
        "settings.md": settings_page(),
        "xid.md": xid_page(),
    }


def _mcp_page() -> str:
    from mcp_server.page import mcp_page
    from mcp_server.tools import ServerSettings

    limits = Settings().query
    return mcp_page(ServerSettings(Path(), "UTC", "", limits.sql_rows_max, limits.sql_time_limit_s))


def settings_page() -> str:
    """`docs/reference/settings.md`."""
    lines = [
        "# Settings",
        "",
        "Generated from `gpuledger/settings.py` by `gpuledger docs`; do not edit.",
        "",
        "A later source wins: `/etc/gpuledger/config.toml`, `$XDG_CONFIG_HOME/gpuledger/config.toml` (or the one",
        "file named by `--config` or `GPULEDGER_CONFIG`), the environment, flags. `gpuledger config --origin` says",
        "where each value came from. An unknown key is an error.",
        "",
        "| setting | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in setting_fields():
        default = (
            "`$XDG_DATA_HOME/gpuledger`"
            if name == "data"
            else ""
            if field.default in ("", None, ())
            else f"`{field.default}`"
        )
        variable = f"{ENV_PREFIX}{name.replace('.', '__').upper()}"
        lines.append(f"| `{name}` | `{variable}` | {default} | {field.description} |")
    return "\n".join([*lines, ""])
