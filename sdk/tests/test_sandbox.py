"""A chat template from a stranger ends, fits in memory, and reaches nothing outside."""

from __future__ import annotations

import pytest

from ptsdk.data.example import BadRow
from ptsdk.data.templates import render
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.errors import UserError

MESSAGES = [{"role": "user", "content": "10000000 of 100 %d {}"}, {"role": "assistant", "content": "b"}]
NESTING = "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = OP %}{% endfor %}{{ TEXT }}"
"""2^40 items, of which 40 are in memory."""
DOUBLING = "{% set ns = namespace(x='x') %}{% for i in range(60) %}{% set ns.x = OP %}{% endfor %}"


def written(template: str) -> str:
    return render(ByteTokenizer(template), MESSAGES).text


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for i in range(10**9) %}x{% endfor %}", "Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
            "steps",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "without end"),
        ("{{ 9**(9**9) }}", "bits"),
        ("{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}", "bits"),
        (NESTING.replace("OP", "[ns.x, ns.x]").replace("TEXT", "ns.x"), "more than"),
        (NESTING.replace("OP", "[ns.x, ns.x]").replace("TEXT", "ns.x|string|length"), "more than"),
        (NESTING.replace("OP", "(ns.x, ns.x)").replace("TEXT", "'' ~ ns.x"), "more than"),
        (NESTING.replace("OP", "{'a': ns.x, 'b': ns.x}").replace("TEXT", "ns.x|tojson"), "more than"),
        (NESTING.replace("OP", "[ns.x, ns.x]").replace("TEXT", "'%s' % (ns.x,)"), "more than"),
        (NESTING.replace("OP", "[ns.x, ns.x]").replace("TEXT", "'{}'.format(ns.x)"), "more than"),
        (NESTING.replace("OP", "[ns.x, ns.x]").replace("TEXT", "ns.x|join(',')"), "more than"),
        (NESTING.replace("OP", "[ns.x, ns.x]").replace("TEXT", "ns"), "more than"),
        ("{{ 'x' * 10**10 }}", "more than"),
        ("{{ ([1] * 10**9)|length }}", "more than"),
        (DOUBLING.replace("OP", "ns.x + ns.x"), "more than"),
        (DOUBLING.replace("OP", "ns.x ~ ns.x"), "more than"),
        ("{% for i in range(1000) %}{{ 'x' * 100000 }}{% endfor %}", "more than"),
        ("{% set t %}{% for i in range(1000) %}{{ 'x' * 100000 }}{% endfor %}{% endset %}", "more than"),
        ("{% for i in range(99999) %}{{ ('x' * 60000000)|length }}{% endfor %}", "steps"),
        ("{{ '%1000000000d' % 1 }}", "format"),
        ("{{ '%*d' % (10**10, 1) }}", "format"),
        ("{{ '{:1000000000d}'.format(1) }}", "format"),
        ("{{ '{:{}d}'.format(1, 10**10) }}", "format"),
        ("{{ '%1000000000d'|format(1) }}", "format"),
        ("{{ 'x'.center(10**10) }}", "`center`"),
        ("{{ 'x'|center(10**10) }}", "`center`"),
        ("{{ 'a\nb'|indent(10**10) }}", "`indent`"),
        ("{{ messages|tojson(indent=10**9) }}", "`tojson`"),
        ("{{ 1.5|round(10**9) }}", "`round`"),
        ("{{ (5).to_bytes(10**9, 'big') }}", "`to_bytes`"),
        ("{{ ('x' * 100000).replace('x', 'y' * 100000) }}", "`replace`"),
        ("{{ ('x' * 100000)|replace('x', 'y' * 100000) }}", "`replace`"),
        ("{{ ('x' * 100000).join('y' * 100000) }}", "`join`"),
        ("{{ ('y' * 100000)|join('x' * 100000) }}", "`join`"),
        ("{{ lipsum(n=1000000) }}", "undefined"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ [].pop }}{{ {}['x'].y }}", "no attribute|unsafe|undefined"),
    ],
)
def test_a_hostile_template_ends_with_a_message(template: str, why: str) -> None:
    with pytest.raises(BadRow, match=why):
        written(template)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ messages[0].content.replace('0', '') }}", "1 of 1 %d {}"),
        ("{{ messages[0].content.center(24) }}|", " 10000000 of 100 %d {}  |"),
        ("{{ '%s-%05d' % ('a', 3) }}{{ '{:>4}'.format(7) }}", "a-00003   7"),
        ("{{ 10**6 * 3 ~ '' ~ none }}", "3000000None"),
        ("{{ x|default(2000000) }}{{ 2000000|string }}", "20000002000000"),
        ("{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}", "1/2,2/2"),
        ("{% for k, v in messages[1].items() %}{{ k }}={{ v }} {% endfor %}", "role=assistant content=b "),
        ("{% for x in nothing %}x{% else %}none{% endfor %}", "none"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.last }}{% endfor %}", "True"),
        (
            "{% macro f(a, b) %}{{ a|length + b|length }}{% endmacro %}{{ f('x' * 30000, 'y' * 30000) }}",
            "60000",
        ),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.content }}{% endfor %}", "b"),
    ],
)
def test_what_templates_do_is_allowed(template: str, text: str) -> None:
    assert written(template) == text


def test_nesting_beyond_the_compiler_is_told() -> None:
    with pytest.raises(UserError, match="too deep"):
        written("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")
