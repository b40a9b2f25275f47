"""Debian's Chromium without a screen, driven over its debugging port."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from visdom_server import wait_for

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page: evaluate JavaScript in it, click it, press keys, look at it."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1250, 1500)):
        """folder: for its profile; size: (H, W) of the page."""
        import websocket

        profile = folder / "chromium"
        self.process = subprocess.Popen(
            [
                PROGRAM,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--remote-debugging-port=0",
                "--remote-allow-origins=*",
                f"--user-data-dir={profile}",
                f"--window-size={size[1]},{size[0]}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port_file = profile / "DevToolsActivePort"
        wait_for(lambda: port_file.exists() and port_file.read_text().count("\n"), 60)
        port = int(port_file.read_text().split()[0])
        pages = wait_for(
            lambda: [
                page
                for page in json.load(
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10)
                )
                if page["type"] == "page"
            ]
        )
        self.socket = websocket.create_connection(
            pages[0]["webSocketDebuggerUrl"], timeout=30, suppress_origin=True
        )
        self.number = 0
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=size[1],
            height=size[0],
            deviceScaleFactor=1,
            mobile=False,
        )

    def command(self, method: str, **parameters) -> dict:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.number:
            continue
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, address: str) -> None:
        self.command("Page.navigate", url=address)

    def value(self, expression: str):
        """Of a JavaScript expression, as JSON."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def click(self, x: float, y: float) -> None:
        for before in (
            2,
            0,
        ):  # a hand: visdom takes the position from its last move, once the page is drawn anew
            self.command("Input.dispatchMouseEvent", type="mouseMoved", x=x - before, y=y)
            time.sleep(0.3)
        for kind in ("mousePressed", "mouseReleased"):
            self.command(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(
            base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])
        )
        return path

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
