"""A headless Chromium that opens the admin interface's page, and what it complained about."""

import base64
import shutil

import pytest

WHERE = {"chromium": shutil.which("chromium"), "chromium-driver": shutil.which("chromedriver")}
PHONE = (390, 844)
DESK = (1280, 900)


def needed():
    """Skips where there is no browser, and says what to install."""
    missing = [package for package, path in WHERE.items() if not path]
    try:
        import selenium  # noqa: F401
    except ImportError:
        missing.append("python3-selenium")
    if missing:
        pytest.skip(f"no browser: install {' '.join(missing)}")


class Browser:
    def __init__(self, directory):
        self.directory = directory
        self.driver = None

    def start(self):
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service
        options = ChromeOptions()
        options.binary_location = WHERE["chromium"]
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                         "--no-first-run", "--disable-background-networking", "--no-proxy-server",
                         "--disable-component-update", "--hide-scrollbars",
                         f"--user-data-dir={self.directory / 'profile'}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = Chrome(service=Service(WHERE["chromium-driver"]), options=options)
        self.driver.set_page_load_timeout(60)
        self.driver.set_script_timeout(30)
        return self

    def finish(self):
        if self.driver:
            self.driver.quit()

    def command(self, name, **arguments):
        return self.driver.execute_cdp_cmd(name, arguments)

    def open(self, url, size=DESK, dark=False):
        """A page as if nobody had been there before."""
        self.command("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1],
                     deviceScaleFactor=1, mobile=size == PHONE)
        self.command("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get(url)
        self.js("sessionStorage.clear()")
        self.driver.get(url)

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def text(self, id):
        return self.js("const e = document.getElementById(arguments[0]);"
                       "return e.checkVisibility() ? e.innerText : null", id)

    def element(self, id):
        return self.driver.find_element("id", id)

    def complaints(self):
        """What its console has, violations of the policy among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, name):
        path = self.directory / f"{name}.png"
        data = self.command("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
        return path
