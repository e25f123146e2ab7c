"""A browser without a window, to look at pages as a person would."""

import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT = 120


def find_browser():
    """Return the program, or skip the test with the reason."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    pytest.skip(f"no browser: install one of {', '.join(NAMES)}")


def _run(folder, page, *options):
    command = [find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={folder / 'profile'}", *options, page.absolute().as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=True)


def screenshot(folder, page, width=1200, height=1600):
    """Draw a page, and return the picture's file."""
    picture = folder / f"{page.stem}.png"
    _run(folder, page, f"--window-size={width},{height}", f"--screenshot={picture}")
    return picture


def after(folder, page, script):
    """Run a script in a page, and return what it says; errors of the page are said too."""
    text = page.read_text()
    assert text.count("</body>") == 1
    asked = folder / f"asked-{page.name}"
    asked.write_text(
        text.replace(
            '<meta charset="utf-8">',
            '<meta charset="utf-8"><script>window.failures = [];'
            'window.addEventListener("error", e => failures.push(e.message));</script>',
        ).replace(
            "</body>",
            "<script>window.said = (() => {" + script + "})();"
            'document.body.textContent = "SAID" + JSON.stringify([failures, said]) + "END";'
            "</script></body>",
        )
    )
    shown = _run(folder, asked, "--dump-dom").stdout
    return shown.split("SAID")[1].split("END")[0]
