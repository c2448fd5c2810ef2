"""report.html in a real browser: nothing is complained about or asked for, filters filter, heads sort, it fits."""

import pytest

from gradworks import report
from tests.report import browser, full_tree

pytestmark = pytest.mark.slow("drives a browser")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    report.build(*full_tree.write(folder), folder / "report")
    return folder / "report/report.html"


@pytest.fixture(scope="module")
def chromium():
    with browser.tab() as tab:
        yield tab


@pytest.fixture
def page(chromium, file):
    return chromium.open(file)


SHOWN = "[...document.querySelectorAll('.results tr[data-method]')].filter(r => r.offsetParent)"
METHODS = f"{SHOWN}.map(r => r.cells[0].textContent).join()"


def choose(page, name, text):
    page.ask(f"{{const s = document.querySelector('select[name={name}]');"
             f"s.value = [...s.options].find(o => o.text === '{text}').value;"
             "s.dispatchEvent(new Event('change'))}")  # fmt: skip


def test_no_complaint_and_no_request(page, file):
    page.ask("document.body.offsetHeight")
    assert page.complaints == [] and page.asked == [file.as_uri()]
    assert page.ask("document.querySelector('.filters').hidden") is False


def test_another_script_may_not_run(page):
    page.ask("{const s = document.createElement('script'); s.text = 'window.strange = 1'; document.body.append(s)}")
    assert page.ask("window.strange") is None
    assert page.ask("fetch('https://example.org/').then(() => 1, () => 2), 0") == 0
    page.ask("new Promise(r => setTimeout(r, 50))")
    assert not any(url.startswith("http") for url in page.asked)


def test_filters_filter(page):
    whole = page.ask(f"{SHOWN}.length")
    assert whole == 8
    choose(page, "method", "reweight")
    assert set(page.ask(METHODS).split(",")) == {"reweight"}
    assert "2 of 8 rows" in page.ask("document.querySelector('[role=status]').textContent")
    dim = "[...document.querySelectorAll('.results figure svg [data-method]')]"
    assert page.ask(f"{dim}.some(g => getComputedStyle(g).opacity < 0.5)")
    assert page.ask(f"{dim}.some(g => getComputedStyle(g).opacity == 1)")
    choose(page, "condition", "noise")
    assert page.ask(METHODS) == "reweight"
    matrices = "[...document.querySelectorAll('.matrix')].filter(m => m.offsetParent).map(m => m.caption.textContent)"
    assert page.ask(f"{matrices}.join()").startswith("reweight · noise · gru") and page.ask(f"{matrices}.length") == 1
    assert page.ask("[...document.querySelectorAll('figure[data-condition=clean]')].every(f => !f.offsetParent)")
    choose(page, "encoder", "cased")
    assert page.ask(METHODS) == ""
    assert page.ask("[...document.querySelectorAll('.results .scroll')].every(f => !f.offsetParent)")
    page.ask("document.querySelector('.filters button').click()")
    page.ask("new Promise(r => setTimeout(r, 50))")
    assert page.ask(f"{SHOWN}.length") == whole and page.complaints == []


TABLES = "[...document.querySelectorAll('.results table')]"
HEAD = f"{TABLES}.find(t => t.caption.textContent.startsWith('noise')).tHead.rows[0]"
VALUES = f"[...{HEAD}.closest('table').tBodies[0].rows].slice(1).map(r => r.cells[1].dataset.value)"


def test_heads_sort_with_the_keyboard(page):
    before = page.ask(VALUES)
    page.ask(f"{HEAD}.cells[1].querySelector('button').focus()")
    page.press("Enter")
    found = [float(x) for x in page.ask(VALUES)]
    assert found == sorted(map(float, before), reverse=True) and page.ask(VALUES) != before
    assert page.ask(f"{HEAD}.cells[1].getAttribute('aria-sort')") == "descending"
    page.press("Enter")
    assert [float(x) for x in page.ask(VALUES)] == sorted(found)
    assert page.ask(f"{HEAD}.querySelectorAll('[aria-sort]').length") == 1
    assert "ascending" in page.ask("document.querySelector('[role=status]').textContent")
    assert page.ask(f"{HEAD}.closest('table').tBodies[0].rows[0].cells[0].textContent") == "gru"


def test_what_has_no_value_stands_last(page):
    difference = f"[...{HEAD}.closest('table').tBodies[0].rows].slice(1).map(r => r.cells[2].dataset.value)"
    for _ in range(2):
        page.ask(f"{HEAD}.cells[2].querySelector('button').click()")
        assert page.ask(f"{difference}.at(-1)") == "" and page.ask(f"{difference}[0]") != ""


@pytest.mark.parametrize("width", [360, 1600])
def test_it_fits_without_scrolling_sideways(chromium, file, width):
    page = chromium.open(file, width=width)
    assert page.ask("document.documentElement.scrollWidth") <= width
    assert page.ask("document.querySelector('h1').getBoundingClientRect().width") > 0.8 * min(width, 1200)


def test_the_gain_and_its_verdict_are_on_a_narrow_screen(chromium, file):
    page = chromium.open(file, width=400)
    for table in range(page.ask("document.querySelectorAll('.results table').length")):
        there = f"document.querySelectorAll('.results table')[{table}]"
        cells = f"[...{there}.querySelectorAll('tbody tr[data-method] td:nth-child(3)')]"
        right = page.ask(f"Math.max(...{cells}.map(c => c.getBoundingClientRect().right))")
        assert right <= page.ask(f"{there}.closest('.scroll').getBoundingClientRect().right") <= 400
        assert page.ask(f"{cells}.some(c => c.querySelector('.verdict'))")
    stacked = "[...document.querySelectorAll('.answer td, .answer th[scope=row]')]"
    assert page.ask(f"Math.max(...{stacked}.map(c => c.getBoundingClientRect().right))") <= 400
    assert page.ask("getComputedStyle(document.querySelector('.answer td'), '::before').content").startswith('"Best')


def test_the_gains_come_before_every_other_picture(page):
    first = page.ask("document.querySelector('main figure svg').getAttribute('aria-label')")
    assert "difference to erm with its 95 % interval" in first


def test_light_and_dark(chromium, file):
    light = chromium.open(file).ask("getComputedStyle(document.body).backgroundColor")
    dark = chromium.open(file, scheme="dark").ask("getComputedStyle(document.body).backgroundColor")
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(22, 23, 26)")
    text = "getComputedStyle(document.querySelector('figure svg text')).fill"
    assert chromium.ask(text) == "rgb(236, 236, 240)"


def test_without_script_everything_is_shown(chromium, file):
    page = chromium.open(file, script=False)
    tree = page("DOM.getDocument", depth=-1)["root"]
    hidden = page("DOM.querySelectorAll", nodeId=tree["nodeId"], selector="main [hidden]")["nodeIds"]
    form = page("DOM.querySelectorAll", nodeId=tree["nodeId"], selector="form.filters")["nodeIds"]
    assert hidden == form and len(form) == 1
    assert not page("DOM.querySelectorAll", nodeId=tree["nodeId"], selector="th button")["nodeIds"]
