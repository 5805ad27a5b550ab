"""Chat templates against transformers' apply_chat_template, which this project did not write."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer

from ptsdk.data.example import BadRow
from ptsdk.data.templates import render
from ptsdk.data.tokenizers import ByteTokenizer
from ptsdk.errors import UserError

TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("chat_templates/*.jinja")
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "single": [{"role": "user", "content": "Hi <b> & 'you'"}],
    "two": [{"role": "user", "content": " Hi "}, {"role": "assistant", "content": " Grüezi 😀 "}],
    "four": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "reasoning_content": "so", "content": "d"},
    ],
    "tool": [
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "It is sunny."},
    ],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}],
}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("bytes")
    ByteTokenizer().save(folder)
    return AutoTokenizer.from_pretrained(folder)


def theirs(oracle: Any, messages: list[dict[str, Any]], template: str, **options: Any) -> str | None:
    try:
        text: str = oracle.apply_chat_template(messages, chat_template=template, tokenize=False, **options)
        return text
    except (TemplateError, TypeError, ValueError):
        return None


def ours(messages: list[dict[str, Any]], template: str, **options: Any) -> str | None:
    try:
        return render(ByteTokenizer(template), messages, **options).text
    except BadRow:
        return None


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("prompt", [False, True])
def test_text_is_what_transformers_renders(oracle: Any, name: str, conversation: str, prompt: bool) -> None:
    for tools in (None, TOOLS):
        options = {"add_generation_prompt": prompt, "tools": tools}
        messages = CONVERSATIONS[conversation]
        assert ours(messages, TEMPLATES[name], **options) == theirs(oracle, messages, TEMPLATES[name], **options)


def test_most_of_these_do_render(oracle: Any) -> None:
    rendered = [ours(messages, TEMPLATES[name]) for name in TEMPLATES for messages in CONVERSATIONS.values()]
    assert sum(text is not None for text in rendered) > len(rendered) / 2


FEATURES = {
    "tojson": "{{ {'b': 'ü<>', 'a': [1, 2.5, none, true]} | tojson }}{{ tools | tojson(indent=4, sort_keys=True) }}",
    "strftime": "{{ strftime_now('%Y') }}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "trim": "  {% if true %}\n  x\n  {% endif %}\n\n",
    "special tokens": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}",
    "documents": "{% for d in documents or [] %}{{ d.title }}{% endfor %}{{ documents is none }}",
    "namespace": "{% set a = namespace(self=1, n=0) %}{% for m in tools %}{% set a.n = a.n + 1 %}{% endfor %}{{ a.n }}",
    "dict": "{{ dict(a=1) | tojson }}{{ dict.fromkeys(['x'], 2) | tojson }}",
    "options": "{{ enable_thinking | default('unset') }}",
    "missing keys": "{{ messages[0].nothing is defined }}{{ messages[0].nothing }}",
    "none content": "{{ messages[1].content is defined }}",
    "macro": "{% macro f(m) %}[{{ m.role }}]{% endmacro %}{% for m in messages %}{{ f(m) }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %};{% endfor %}",
    "thinking": "{% for m in messages %}{{ m.thinking }}{{ m.reasoning_content }}{% endfor %}",
    "sandboxed mutation": "{{ messages.append(1) }}",
    "sandboxed attribute": "{{ ''.__class__.__mro__ }}",
    "sandboxed namespace": "{% set ns = namespace(_x=1) %}",
    "raise": "{{ raise_exception('no') }}",
}


@pytest.mark.parametrize("feature", FEATURES)
def test_features_of_the_environment(oracle: Any, feature: str) -> None:
    messages = [
        {"role": "user", "content": "x", "nothing": None},
        {"role": "assistant", "content": None, "reasoning": "r", "tool_calls": [CALL]},
    ]
    options = {"tools": TOOLS, "documents": [{"title": "T", "text": "t"}], "enable_thinking": False}
    expected = theirs(oracle, messages, FEATURES[feature], **options)
    assert ours(messages, FEATURES[feature], **options) == expected
    assert (expected is None) == (feature.startswith("sandboxed") or feature == "raise")


def test_generation_spans_are_characters_of_the_text() -> None:
    block = "{% generation %}{{ m.content }};{% endgeneration %}"
    template = "{% for m in messages %}" + block + "{% endfor %}"
    rendered = render(ByteTokenizer(template), CONVERSATIONS["two"])
    assert rendered.spans is not None
    assert [rendered.text[a:b] for a, b in rendered.spans] == [" Hi ;", " Grüezi 😀 ;"]
    assert render(ByteTokenizer("{{ 1 }}"), CONVERSATIONS["two"]).spans is None


def test_a_template_with_tools_of_its_own_is_used_where_there_are_tools() -> None:
    tokenizer = ByteTokenizer({"default": "plain", "tool_use": "tools"})
    assert render(tokenizer, CONVERSATIONS["single"]).text == "plain"
    assert render(tokenizer, CONVERSATIONS["single"], TOOLS).text == "tools"


def test_the_year_is_todays() -> None:
    assert ours(CONVERSATIONS["single"], FEATURES["strftime"]) == str(datetime.now().year)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UserError, match="not valid Jinja \\(line 2\\)"):
        render(ByteTokenizer("\n{% if %}"), CONVERSATIONS["single"])
    with pytest.raises(UserError, match="no chat template"):
        render(ByteTokenizer(), CONVERSATIONS["single"])
    with pytest.raises(BadRow, match="take turns"):
        render(ByteTokenizer(TEMPLATES["folded_system"]), [{"role": "assistant", "content": "x"}])


def test_each_generation_block_is_found_without_reading_what_is_before_it() -> None:
    """A row of many blocks: to add up the text before each would take a minute."""
    loops, ends = "{% for a in range(99999) %}{% for b in range(99999) %}", "{% endfor %}{% endfor %}"
    with pytest.raises(BadRow, match="steps"):
        render(ByteTokenizer(loops + "{% generation %}{% endgeneration %}" + ends), [])
