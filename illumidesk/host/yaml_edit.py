"""Change one key in YAML text as a person would: every other character stays as it was.

A YAML round trip drops the comment below a key together with the key, because it holds that comment as the
end of the line above. So ruamel.yaml only tells where each key and value lies, and the text is changed there.
What comes out is read again and compared: an unusual way of writing ends in an error, never in a wrong file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, SequenceNode

from illumidesk.errors import IllumiDeskError


def with_value(text: str, key: str, value: Any, order: Sequence[str] = ()) -> str:
    """The YAML `text` with `key` set to `value`.

    A new key comes right below the one before it, so that comments stay with what they explain.

    Args:
        text: YAML with a mapping in it, or nothing.
        key: a dotted key; sections that are not there are made.
        value: a scalar or a list.
        order: every known dotted key, in the order in which a person would look for them.

    Raises:
        IllumiDeskError: where `text` is not YAML, or is written so that this cannot be done (with shared
            anchors, say).
    """
    wanted = load(text)
    _put(wanted, key.split("."), value)
    return _checked(_inserted(text, key.split("."), value, order), wanted)


def without_value(text: str, key: str) -> str:
    """The YAML `text` without `key`, which it has.

    Raises:
        IllumiDeskError: as `with_value`.
    """
    wanted = load(text)
    _drop(wanted, key.split("."))
    return _checked(_removed(text, key.split(".")), wanted)


def load(text: str) -> dict[str, Any]:
    """The mapping that the YAML `text` holds; empty where it holds nothing.

    Raises:
        IllumiDeskError: where it is not YAML, or holds something else.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise _not_yaml(error) from None
    if not isinstance(raw, dict | None):
        raise IllumiDeskError("the file must hold keys and values", hint="see the comments in the shipped file")
    return _copy(raw or {})


def has(raw: Any, key: str) -> bool:
    """Whether the nested dictionaries `raw` have the dotted `key`."""
    for part in key.split("."):
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def as_yaml(value: Any) -> str:
    """A scalar, list or dictionary as one line of YAML."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.allow_unicode = True
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 1 << 20
    out = io.StringIO()
    yaml.dump(value, out)
    return out.getvalue().removesuffix("...\n").strip()


def _inserted(text: str, parts: list[str], value: Any, order: Sequence[str]) -> str:
    node = _compose(text)
    if node is None or _is_empty(node):  # nothing but comments
        return _with_lines(text, len(text), parts, value, indent=0)
    for depth, part in enumerate(parts):
        if not isinstance(node, MappingNode):
            break
        rest = parts[depth:]
        if node.flow_style:
            return _with_flow(text, node, lambda inner, rest=rest: _put(inner, rest, value))  # type: ignore[misc]
        pair = _pair(node, part)
        if pair is None:
            place = _place(text, node, parts[: depth + 1], order)
            return _with_lines(text, place, rest, value, indent=node.value[0][0].start_mark.column)
        name, held = pair
        if len(rest) == 1:
            return _with_scalar(text, name, held, value)
        if _is_empty(held):
            below = _next_line(text, name.end_mark.index)
            return _with_lines(text, below, rest[1:], value, indent=name.start_mark.column + 2)
        node = held
    raise _by_hand()


def _removed(text: str, parts: list[str]) -> str:
    node = _compose(text)
    for depth, part in enumerate(parts):
        if not isinstance(node, MappingNode):
            break
        rest = parts[depth:]
        if node.flow_style:
            return _with_flow(text, node, lambda inner, rest=rest: _drop(inner, rest))  # type: ignore[misc]
        pair = _pair(node, part)
        if pair is None:
            break
        name, held = pair
        if len(rest) == 1:
            start = name.start_mark.index - name.start_mark.column
            return text[:start] + text[_next_line(text, _end(text, name, held)) :]
        node = held
    raise _by_hand()


def _with_scalar(text: str, name: Node, held: Node, value: Any) -> str:
    colon = text.index(":", name.end_mark.index) + 1
    if _is_empty(held):
        return f"{text[:colon]} {as_yaml(value)}{text[colon:]}"
    if isinstance(held, SequenceNode) and not held.flow_style:
        items = held.start_mark.index - held.start_mark.column
        rest = text[_next_line(text, _end(text, name, held)) :]
        return f"{text[:colon]} {as_yaml(value)}{text[colon:items]}{rest}"
    return text[: held.start_mark.index] + as_yaml(value) + text[_end(text, name, held) :]


def _with_lines(text: str, place: int, parts: list[str], value: Any, *, indent: int) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    before, after = text[:place], text[place:]
    if before and not before.endswith("\n"):
        before += newline
    lines = [" " * (indent + 2 * depth) + f"{part}:" for depth, part in enumerate(parts)]
    return before + newline.join(lines) + f" {as_yaml(value)}{newline}" + after


def _with_flow(text: str, node: MappingNode, change: Callable[[dict[str, Any]], None]) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    inner = load(text[start:end])
    change(inner)
    return text[:start] + as_yaml(inner) + text[end:]


def _place(text: str, node: MappingNode, parts: list[str], order: Sequence[str]) -> int:
    """Where in `text` a new key, `parts`, of the block mapping `node` goes."""
    rank = {name: at for at, name in enumerate(order)}
    ranks = [rank.get(".".join([*parts[:-1], name.value]), -1) for name, _ in node.value]
    mine = rank.get(".".join(parts), len(rank))
    earlier = [(at, pair) for at, pair in zip(ranks, node.value, strict=True) if at < mine]
    if earlier:
        name, held = max(earlier, key=lambda ranked: ranked[0])[1]
        return _next_line(text, _end(text, name, held))
    first = node.value[0][0].start_mark
    place: int = first.index - first.column
    above = place  # the comments of the key that is first now, unless they are the file's own heading
    while above and text[text.rfind("\n", 0, above - 1) + 1 : above].lstrip().startswith("#"):
        above = text.rfind("\n", 0, above - 1) + 1
    return above or place


def _end(text: str, name: Node, held: Node) -> int:
    """Where the value `held` of the key `name` ends in `text`, without what follows it on its line."""
    while isinstance(held, CollectionNode) and not held.flow_style:
        child = held.value[-1]
        name, held = child if isinstance(held, MappingNode) else (child, child)
    last = name if _is_empty(held) else held
    return len(text[: last.end_mark.index].rstrip())


def _next_line(text: str, index: int) -> int:
    newline = text.find("\n", index)
    return len(text) if newline < 0 else newline + 1


def _pair(node: MappingNode, name: str) -> tuple[Node, Node] | None:
    return next(((key, held) for key, held in node.value if key.value == name), None)


def _is_empty(node: Node) -> bool:
    return bool(node.start_mark.index == node.end_mark.index)


def _compose(text: str) -> Node | None:
    try:
        node: Node | None = YAML(pure=True).compose(text)
    except YAMLError as error:
        raise _not_yaml(error) from None
    return node


def _checked(text: str, wanted: dict[str, Any]) -> str:
    """`text`, where it says what is `wanted`. Anchors, for one, make a change in one place one in several."""
    if _pruned(load(text)) != _pruned(wanted):
        raise _by_hand()
    return text


def _copy(raw: dict[Any, Any]) -> dict[str, Any]:
    """A copy in which nothing is shared, as anchors do."""
    return {str(key): _copy(value) if isinstance(value, dict) else value for key, value in raw.items()}


def _pruned(raw: dict[str, Any]) -> dict[str, Any]:
    deep = {key: _pruned(value) if isinstance(value, dict) else value for key, value in raw.items()}
    return {key: value for key, value in deep.items() if value is not None and value != {}}


def _put(raw: dict[str, Any], parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        if raw.get(part) is None:
            raw[part] = {}
        raw = raw[part]
        if not isinstance(raw, dict):
            raise IllumiDeskError(f"{part} should be a section, and holds {raw!r}", hint="edit the file by hand")
    raw[parts[-1]] = value


def _drop(raw: dict[str, Any], parts: list[str]) -> None:
    for part in parts[:-1]:
        raw = raw[part]
    del raw[parts[-1]]


def _not_yaml(error: YAMLError) -> IllumiDeskError:
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or "it cannot be read"
    return IllumiDeskError(f"the file is not valid YAML{where}: {problem}", hint="check the indentation")


def _by_hand() -> IllumiDeskError:
    return IllumiDeskError(
        "the file is written in a way that this command cannot change",
        hint="edit it by hand, then run `illumidesk config validate`",
    )
