"""Fixtures: a server in memory, and a browser."""

import pytest

from tests.server.conftest import offer, root
from tests.status.pages import resize
from tests.support.programs import program

__all__ = ["offer", "root"]


@pytest.fixture(scope="module")  # other modules count the children of this process
def _chromium():
    """Return a Chromium that all tests of a module share."""
    chromium, chromedriver = program("chromium"), program("chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # The sandbox refuses root, and /dev/shm of a container is too small.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        driver.set_page_load_timeout(30)
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(_chromium):
    """Return the browser with a window for desktops."""
    resize(_chromium, 1280)
    return _chromium
