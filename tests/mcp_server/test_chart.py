"""The chart, drawn and clicked in Chromium: the official host bridge around it, the real server behind it."""

import asyncio
import os
import re
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mcp import Client
from playwright.async_api import async_playwright

from mcp_server.chart import CHART_URI, chart_document
from mcp_server.server import make_server

# What a host allows an app that names no origin.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
BROWSERS = ("chromium", "google-chrome")
ASKED = {"metrics": ["gpu.utilization_percent", "gpu.power_watts"], "window": "15m"}


@pytest.fixture(scope="session")
def host_script(npm, tmp_path_factory, pytestconfig):
    """The host's side, bundled."""
    tools = pytestconfig.pluginmanager.get_plugin("npm_tools")
    source = npm.parent / f"chart_host-{os.getpid()}.js"  # beside the packages, where their names are resolved
    source.write_text(Path(__file__).with_name("chart_host.js").read_text())
    bundle = tmp_path_factory.mktemp("host") / "host.js"
    tools.run(tools.NODE, npm / "rolldown/bin/cli.mjs", source, "--file", bundle, "--format", "iife")
    source.unlink()
    return bundle.read_text()


class Screen:
    """What a test sees of the app, and what the app asked of the server."""

    def __init__(self, page, calls, requests):
        self.page, self.calls, self.requests = page, calls, requests
        self.frame = page.frame_locator("iframe")

    async def said(self, pattern: str) -> str:
        """The sentence under the chart, once it is of that form."""
        line = self.frame.locator("#said").filter(has_text=re.compile(pattern))
        await line.wait_for(timeout=30_000)
        return await line.inner_text()

    async def colours(self) -> set[tuple[int, ...]]:
        """The colours in the canvas."""
        drawn = await self.frame.locator("canvas").evaluate(
            """canvas => {
                const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height), found = new Set();
                for (let i = 0; i < data.length; i += 4)
                    if (data[i + 3] === 255) found.add(data.slice(i, i + 3).join());
                return [...found];
            }"""
        )
        return {tuple(map(int, colour.split(","))) for colour in drawn}


@asynccontextmanager
async def screen(settings, host_script, given=ASKED, theme="light"):
    calls, requests = [], []
    async with Client(make_server(settings)) as client, async_playwright() as playwright:
        (found,) = (await client.read_resource(CHART_URI)).contents
        assert found.mime_type == "text/html;profile=mcp-app"

        async def call_tool(params):
            calls.append(params)
            result = await client.call_tool(params["name"], params["arguments"])
            return result.model_dump(mode="json", by_alias=True, exclude_none=True)

        browser = await playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, BROWSERS))), args=["--no-sandbox"]
        )
        page = await browser.new_page(viewport={"width": 820, "height": 440})
        problems = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on("request", lambda one: requests.append(one.url))
        await page.expose_function("callTool", call_tool)
        await page.add_script_tag(content=host_script)
        html = found.text.replace("<head>", f'<head><meta http-equiv="Content-Security-Policy" content="{POLICY}">')
        await page.evaluate("given => window.show(...given)", [html, given, theme])
        yield Screen(page, calls, requests)
        assert problems == []
        await browser.close()


def test_the_chart_is_drawn_asks_for_its_own_series_and_can_be_clicked(settings, host_script, tmp_path):
    async def look():
        async with screen(settings, host_script) as seen:
            await seen.said(r"gpu\.utilization_percent: avg .* Drag over the chart")
            await seen.page.screenshot(path=tmp_path / "light.png")
            light = await seen.colours()
            shown, dense = seen.calls[0]["arguments"], seen.calls[-1]["arguments"]
            assert shown == ASKED
            assert (dense["metrics"], dense["detail"]) == (["gpu.utilization_percent"], "full")
            assert dense["points"] > 100
            assert {(0x25, 0x63, 0xEB), (0xD9, 0x77, 0x06)} <= light  # one line a GPU
            assert await seen.frame.locator(".u-legend .u-label").all_inner_texts() == ["Time", "GPU 0", "GPU 1"]

            await seen.frame.locator("#metric").select_option("gpu.power_watts")
            await seen.said(r"gpu\.power_watts: avg ")

            chart = await seen.frame.locator(".u-over").bounding_box()
            y = chart["y"] + chart["height"] / 2
            await seen.page.mouse.move(chart["x"] + chart["width"] * 0.6, y)
            await seen.page.mouse.down()
            await seen.page.mouse.move(chart["x"] + chart["width"] * 0.9, y, steps=5)
            await seen.page.mouse.up()
            await seen.frame.locator("#back:enabled").wait_for()
            await seen.said(r"gpu\.power_watts: avg ")
            closer = seen.calls[-1]["arguments"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}Z\.\.\d{4}-\d\d-\d\dT[\d:]{8}Z", closer["window"])

            await seen.frame.locator("#back").click()
            await seen.said(r"gpu\.power_watts: avg ")
            assert seen.calls[-1]["arguments"]["window"] == "15m"
            await seen.frame.get_by_role("button", name="1h").click()
            await seen.said(r"gpu\.power_watts: avg ")
            assert seen.calls[-1]["arguments"]["window"] == "1h"

            await seen.page.evaluate("window.setTheme('dark')")
            await seen.frame.locator("html[data-theme=dark]").wait_for(state="attached")
            await seen.page.screenshot(path=tmp_path / "dark.png")
            assert (0x7A, 0xA7, 0xFF) in await seen.colours()
            assert await seen.page.evaluate("window.appHeight > 250 && window.takeDown().then(() => true)")
            assert [url for url in seen.requests if not url.startswith(("about:", "data:"))] == []

    asyncio.run(look())


def test_a_window_without_values_says_why_and_draws_nothing(settings, host_script):
    async def look():
        async with screen(settings, host_script, {"metrics": ["gpu.power_watts"], "window": "2020-01-01"}) as seen:
            said = await seen.said("no values")
            assert "gpu.power_watts" in said
            assert await seen.frame.locator("canvas").count() == 0

    asyncio.run(look())


def test_an_error_of_the_tool_is_shown_as_it_was_said(settings, host_script):
    async def look():
        async with screen(settings, host_script, {"metrics": ["gpu.powr_watts"]}, theme="dark") as seen:
            assert "gpu.power_watts" in await seen.said("gpu.powr_watts")

    asyncio.run(look())


def test_the_document_names_no_other_origin():
    assert re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", chart_document()) == []
    assert "/* chart.js */" not in chart_document()
