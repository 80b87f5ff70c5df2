"""The page of `patc report` in a browser: headless Chromium, on a wide screen and on a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest
import torch
from torch import nn

import patc
from patc.explain.build import make_report
from patc.tools.report_page import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (1280, 390)
# Sorts every table by its first button, then tells the frame around it what a reader would see.
PROBE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement;
  const cells = table => [...table.tBodies[0].rows].map(row => row.cells[0].innerText);
  const sorted = [...document.querySelectorAll("table")].filter(table => table.querySelector("th button")).map(table => {
    table.querySelector("th button").click();
    return {label: table.querySelector("th").getAttribute("aria-sort"), cells: cells(table)};
  });
  const wide = [...document.querySelectorAll("body *")].filter(item => {
    for (let outer = item; outer; outer = outer.parentElement)
      if (/auto|scroll|hidden/.test(getComputedStyle(outer).overflowX)) return false;
    return item.getBoundingClientRect().right > root.clientWidth + 1;
  });
  parent.postMessage({width: innerWidth, beyond: root.scrollWidth - root.clientWidth, sorted,
    wide: wide.map(item => item.tagName), targets: [...document.querySelectorAll("a[href^='#']")]
      .filter(item => !document.getElementById(item.getAttribute("href").slice(1))).length}, "*");
}, 50));
</script>
"""
FRAMES = """
<!doctype html><title>frames</title>
<script>const found = []; addEventListener("message", event => {
  found.push(event.data); document.body.dataset.found = JSON.stringify(found); });</script>
<body>%s</body>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()).eval()
    patc.pruning.prune_(net, patc.pruning.PatternSpec(connectivity=2.0))
    compiled = patc.compile(net, (torch.zeros(1, 8, 12, 12),), threads=1)
    page = render(make_report([("one.patc", compiled), ("two.patc", compiled)]))
    assert page.count("</body>") == 1
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{PROBE}</body>"))
    frames = "".join(f'<iframe src="page.html" style="width:{width}px; height:800px"></iframe>' for width in WIDTHS)
    (tmp_path / "frames.html").write_text(FRAMES % frames)
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom")
    command = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path / 'user'}", "--virtual-time-budget=10000"]
    run = subprocess.run(
        [*command, (tmp_path / "frames.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert [line for line in run.stderr.splitlines() if "CONSOLE" in line] == []
    found = json.loads(unescape(re.search(r'data-found="([^"]*)"', run.stdout)[1]))  # type: ignore[index]
    assert sorted(item["width"] for item in found) == sorted(WIDTHS)
    for item in found:
        assert (item["beyond"], item["wide"], item["targets"]) == (0, [], 0)
        assert item["sorted"] and all(table["label"] is not None for table in item["sorted"])
        for table in item["sorted"]:
            assert table["cells"] in (sorted(table["cells"]), sorted(table["cells"], reverse=True))
