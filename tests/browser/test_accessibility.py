"""For everybody: axe-core on every page, the keyboard's way to every control, and windows of three widths, light and
dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.app.fake_study import HOSTILE_ID
from tests.browser.running_app import find_chromium, visit, wait_until_still

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium or Chrome found; set CHROMIUM to its path"),
]
VIEWS = {
    "overview": "?study=fake",
    "documents": f"documents?study=fake&doc={HOSTILE_ID}",
    "threshold": "threshold?study=fake&low=1&high=9&range=tail",
    "compare": "compare?study=fake&models=base,default,random,oracle",
    "blind": "compare?study=fake&blind=true",
    "queries": "queries?study=fake&query=1",
}
SCHEMES = ("light", "dark")
WIDTHS = (900, 1440, 2560)
MOST_TABS = 400
WALK = """
const roots = [...document.querySelectorAll("*")].map((e) => e.shadowRoot).filter(Boolean);
const ours = roots.flatMap((r) => [...r.querySelectorAll("*")]);
const name = (e) => `<${e.tagName.toLowerCase()} class="${e.className.baseVal ?? e.className}"> ${(e.textContent || e.value || e.getAttribute("aria-label") || "").trim().slice(0, 50)}`;
const seen = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && e.getClientRects().length > 0;
"""
CONTROLS = 'a[href], button, input, select, textarea, summary, [role="slider"], [role="button"], [tabindex]'
UNREACHED = f"""() => {{ {WALK}
  const wanted = ours.filter((e) => e.matches('{CONTROLS}') && seen(e) && !e.disabled && e.tabIndex >= 0 && !window.__reached.has(e));
  const byHandOnly = ours.filter((e) => seen(e) && getComputedStyle(e).cursor === "pointer" && !e.closest('label, {CONTROLS}'));
  return [...wanted, ...byHandOnly].map(name);
}}"""
"""Our components' controls that the tabulator key did not come to, and what answers to a pointer alone."""
NEXT = """() => {
  let e = document.activeElement;
  while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
  const known = window.__reached.has(e);
  window.__reached.add(e);
  return known && e !== document.body;
}"""
CLIPPED = f"""() => {{ {WALK}
  const cut = ours.filter((e) => {{
    if (!seen(e) || !e.textContent.trim() || e.closest("[popover]")) return false;
    const style = getComputedStyle(e), own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own) return false;
    const hides = (side) => ["hidden", "clip"].includes(style[side]);
    const shortened = style.textOverflow === "ellipsis" || style.webkitLineClamp !== "none";
    if (shortened) return false;
    return hides("overflowX") && e.scrollWidth > e.clientWidth + 1 || hides("overflowY") && e.scrollHeight > e.clientHeight + 2;
  }});
  const out = ours.filter((e) => {{
    if (!seen(e) || ![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) return false;
    const host = e.getRootNode().host.getBoundingClientRect(), box = e.getBoundingClientRect();
    let scrolls = false;
    for (let p = e; p; p = p.parentElement) scrolls ||= getComputedStyle(p).overflowX !== "visible" || getComputedStyle(p).position === "fixed";
    return !scrolls && (box.left < host.left - 2 || box.right > host.right + 2);
  }});
  const figures = [...document.querySelectorAll('[data-testid="stMetric"] *')].filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "hidden");
  const main = document.querySelector('[data-testid="stMain"]');
  return [...cut, ...out, ...figures].map(name).concat(main.scrollWidth > main.clientWidth ? ["the page"] : []);
}}"""
"""Our components' text that is cut without a sign of it, or stands outside of its component; and the page where it is
too wide."""


@pytest.fixture(params=SCHEMES)
def opened(request, browser):
    context = browser.new_context(
        color_scheme=request.param, viewport={"width": 1440, "height": 1000}, reduced_motion="reduce"
    )
    yield context.new_page()
    context.close()


def find_violations(page) -> list[str]:
    """Serious and critical findings of axe-core, in components' shadow trees too."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]}: {node['failureSummary'][:200]}"
        for rule in found
        for node in rule["nodes"]
        if node["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("view", VIEWS)
def test_a_page_can_be_used_by_everybody(opened, address, view):
    visit(opened, address, VIEWS[view])
    opened.get_by_text("Show offensive text").click()
    wait_until_still(opened)
    assert find_violations(opened) == []
    for width in WIDTHS:
        opened.set_viewport_size({"width": width, "height": 1000})
        wait_until_still(opened)
        assert opened.evaluate(CLIPPED) == [], width


@pytest.mark.parametrize("view", VIEWS)
def test_every_control_of_ours_is_reached_by_keyboard(page, address, view):
    visit(page, address, VIEWS[view])
    page.get_by_text("Show offensive text").click()
    wait_until_still(page)
    page.evaluate("() => { window.__reached = new Set(); document.activeElement.blur(); }")
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if page.evaluate(NEXT):
            break
    assert page.evaluate("window.__reached.size") > 8
    assert page.evaluate(UNREACHED) == []


def test_the_probes_find_what_they_look_for(page, address):
    visit(page, address, VIEWS["overview"])
    page.evaluate("() => { window.__reached = new Set(); }")
    before = len(page.evaluate(UNREACHED))
    page.evaluate("""() => {
          const root = [...document.querySelectorAll("*")].map((e) => e.shadowRoot).filter(Boolean)[0];
          const add = (style, text) => { const e = document.createElement("div"); e.style = style; e.textContent = text; root.append(e); return e; };
          add("width: 3rem; overflow: hidden; white-space: nowrap", "cut off at the right");
          add("position: absolute; left: -90px", "outside");
          add("color: #aaa; background: #fff", "pale words");
          add("cursor: pointer", "pointer only");
          root.append(Object.assign(document.createElement("button"), { textContent: "never reached" }));
        }""")
    assert [line.split("> ")[1] for line in page.evaluate(CLIPPED)] == ["cut off at the right", "outside"]
    assert len(page.evaluate(UNREACHED)) == before + 2
    assert [line.split(":")[0] for line in find_violations(page) if "pale words" in line] == ["color-contrast"]
