"""Every page, for everybody: it loads without errors and asks nobody else; axe-core, the keyboard's way to every
control, and windows of four widths, light and dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.app.fake_study import HOSTILE_ID
from tests.browser.conftest import needs_browser
from tests.browser.running_app import choose_veil, visit, wait_until_still

pytestmark = needs_browser
VIEWS = {
    "overview": "?study=fake",
    "documents": f"documents?study=fake&doc={HOSTILE_ID}",
    "threshold": "threshold?study=fake&low=1&high=9&range=tail",
    "map": "threshold?study=fake&part=Map",
    "compare": "compare?study=fake&models=base,default,random,oracle",
    "queries": "queries?study=fake&query=1",
    "drawer": "compare?study=fake&pick=3.0.base",
    "blind": "compare?study=fake&blind=true",
    "rating": "compare?study=fake&blind=true&blind_task=Rate+60+answers",
    "studies": "studies?study=fake",
    "new_study": "new_study?study=fake",
}
ALWAYS = (
    ("overview", "light"),
    ("documents", "dark"),
    ("threshold", "light"),
    ("compare", "dark"),
    ("queries", "light"),
    ("studies", "dark"),
    ("new_study", "light"),
)
"""A view and a theme of each page; the others are thorough."""
WIDTHS = (900, 1280, 1440, 2560)
MOST_TABS = 400
WALK = """
const roots = [...document.querySelectorAll("*")].map((e) => e.shadowRoot).filter(Boolean);
const ours = roots.flatMap((r) => [...r.querySelectorAll("*")]);
const name = (e) => {
  const text = e.textContent || e.value || e.getAttribute("aria-label") || "";
  return `<${e.tagName.toLowerCase()} class="${e.className.baseVal ?? e.className}"> ${text.trim().slice(0, 50)}`;
};
const seen = (e) => e.checkVisibility({ visibilityProperty: true, opacityProperty: true })
  && e.getClientRects().length > 0;
const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
"""
CONTROLS = 'a[href], button, input, select, textarea, summary, [role="slider"], [role="button"], [tabindex]'
UNREACHED = f"""() => {{ {WALK}
  const reachable = (e) => seen(e) && !e.disabled && e.tabIndex >= 0;
  const wanted = ours.filter((e) => e.matches('{CONTROLS}') && reachable(e) && !window.__reached.has(e));
  const byPointer = (e) => getComputedStyle(e).cursor === "pointer" && !e.closest('label, {CONTROLS}');
  return [...wanted, ...ours.filter((e) => seen(e) && byPointer(e))].map(name);
}}"""
"""Our components' controls that the Tab key did not reach, and what answers to a pointer alone."""
NEXT = """() => {
  let e = document.activeElement;
  while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
  const known = window.__reached.has(e);
  window.__reached.add(e);
  return known && e !== document.body;
}"""
CLIPPED = f"""() => {{ {WALK}
  const cut = ours.filter((e) => {{
    if (!seen(e) || !hasText(e) || e.closest("[popover]")) return false;
    const style = getComputedStyle(e);
    if (style.textOverflow === "ellipsis" || style.webkitLineClamp !== "none") return false;
    if (style.clipPath !== "none") return false; // for screen readers
    const hides = (side) => ["hidden", "clip"].includes(style[side]);
    return hides("overflowX") && e.scrollWidth > e.clientWidth + 1
      || hides("overflowY") && e.scrollHeight > e.clientHeight + 2;
  }});
  const out = ours.filter((e) => {{
    if (!seen(e) || !hasText(e)) return false;
    const host = e.getRootNode().host.getBoundingClientRect(), box = e.getBoundingClientRect();
    const scrolls = (style) => style.overflowX !== "visible" || style.position === "fixed";
    for (let p = e; p; p = p.parentElement) if (scrolls(getComputedStyle(p))) return false;
    return box.left < host.left - 2 || box.right > host.right + 2;
  }});
  const figures = [...document.querySelectorAll('[data-testid="stMetric"] *')]
    .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "hidden");
  const wide = ['[data-testid="stMain"]', ".st-key-topbar"].filter((part) => {{
    const e = document.querySelector(part);
    return e.scrollWidth > e.clientWidth;
  }});
  return [...cut, ...out, ...figures].map(name).concat(wide);
}}"""
"""Our components' text that is cut without a sign of it or is outside its component; and the page or its header if
it is too wide."""


def find_violations(page) -> list[str]:
    """Serious and critical findings of axe-core, in components' shadow trees too."""
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:200]}: {node['failureSummary'][:200]}"
        for rule in found
        for node in rule["nodes"]
        if node["impact"] in ("serious", "critical")
    ]


CASES = [
    pytest.param(view, scheme, marks=() if (view, scheme) in ALWAYS else pytest.mark.thorough)
    for view in VIEWS
    for scheme in ("light", "dark")
]


@pytest.mark.parametrize(("view", "scheme"), CASES)
def test_a_page_can_be_used_by_everybody(page, address, view, scheme):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": 1440, "height": 1000})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    visit(page, address, VIEWS[view])
    assert page.locator('[data-testid="stException"], [data-testid="stAlertContentError"]').count() == 0
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    choose_veil(page, "Text shown")
    wait_until_still(page)
    assert find_violations(page) == []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1000})
        wait_until_still(page)
        assert page.evaluate(CLIPPED) == [], width
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
          const add = (style, text) => {
            root.append(Object.assign(document.createElement("div"), { style, textContent: text }));
          };
          add("width: 3rem; overflow: hidden; white-space: nowrap", "cut off at the right");
          add("position: absolute; left: -90px", "outside");
          add("color: #aaa; background: #fff", "pale words");
          add("cursor: pointer", "pointer only");
          root.append(Object.assign(document.createElement("button"), { textContent: "never reached" }));
        }""")
    assert [line.split("> ")[1] for line in page.evaluate(CLIPPED)] == ["cut off at the right", "outside"]
    assert len(page.evaluate(UNREACHED)) == before + 2
    assert [line.split(":")[0] for line in find_violations(page) if "pale words" in line] == ["color-contrast"]
