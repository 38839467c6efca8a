"""From a method and a path to the route template that names a quota.

A template is a path with placeholders for whole segments: ``/2/users/{id}/tweets``. A ``.json``
suffix stays outside: ``/1.1/statuses/show/{id}.json``. Paths are taken raw, as they go over the
wire, so that an encoded slash never becomes a segment border. Empty segments and a trailing
slash are dropped.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from string import ascii_letters, digits, hexdigits
from urllib.parse import quote, unquote
from uuid import UUID

from aiotwhelp import checks

_SUFFIX = ".json"
#: Marks the suffix among the segments; holds a slash, so that no segment can equal it.
_SUFFIX_MARK = "/.json"
_HOLE = "{id}"
#: A word of a route is shorter. Unbounded ones would let a server's links fill our memory.
_LONGEST_SEGMENT = 64
#: The X API has paths of seven segments. What comes after the sixteenth is folded into one.
_MOST_SEGMENTS = 16
_REST = "{rest}"
_UNRESERVED = frozenset(ascii_letters + digits + "-._~")
_UUID_DASHES = (8, 13, 18, 23)
_BEFORE_PATH = re.compile(r"[^/?#]*//[^/?#\\]*")
_PLACEHOLDER = re.compile(r"\{([^{}/]*)\}")


def generic_template(path: str) -> str:
    """Return the template of a path of which nothing is known.

    Segments of digits, UUIDs, 16 and more hex digits, and those longer than 64 characters
    become ``{id}``; so do placeholders, whatever their name. A first segment of one or two
    digits is a version (``/2/users``) and stays.
    """
    return _join(_generic(_split(path)))


def expand(template: str, params: Mapping[str, object] | None = None) -> str:
    """Return the path that a template and its parameters make.

    Each value is percent-encoded as one segment, so that nothing in it can lead elsewhere.
    Values are str, int or UUID. Raises ValueError for missing, unknown, empty and dotted
    values, and for placeholders before the path; TypeError for values of other types.
    """
    params = {} if params is None else params
    checks.instance("path_params", params, Mapping, "a mapping such as {'id': 12}")
    # A dict, so that each name is looked up at once, and named in its order.
    names = dict.fromkeys(_PLACEHOLDER.findall(template))
    _check_names(template, names, params)
    values = {name: _segment(template, name, params[name]) for name in names}
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def leading(template: str, path: str) -> str | None:
    """Return the first segments of a path that are of a template's form; None if they are not."""
    wanted, segments = _split(template), _split(path)
    if len(segments) < len(wanted):
        return None
    for expected, segment in zip(wanted, segments, strict=False):
        if not _is_placeholder(expected) and expected != segment:
            return None
    return _join(segments[: len(wanted)])


def is_of(template: str, path: str) -> bool:
    """Whether a path is one that a template makes."""
    wanted, segments = _split(template), _split(path)
    if segments[-1:] == [_SUFFIX_MARK] and len(segments) > len(wanted):
        segments = _without_mark(segments)
    return len(segments) == len(wanted) and all(
        "{" in expected or expected == segment
        for expected, segment in zip(wanted, segments, strict=True)
    )


def is_template(path: str) -> bool:
    """Whether a path has braces, which none has on the wire (RFC 3986, 3.3); queries may."""
    for end in "?#":
        path = path.partition(end)[0]
    return "{" in path or "}" in path


class Routes:
    """The known templates of an API.

    ``templates`` are pairs of method and template. Placeholders match any one segment, and
    their names do not matter: the spelling of the known template is the one that is returned.
    """

    def __init__(self, templates: Iterable[tuple[str, str]]) -> None:
        self._root = _Node()
        for method, template in templates:
            self._add(method.upper(), template)

    def match(self, method: str, path: str, written: str | None = None) -> str:
        """Return the template of a path: known for this method, known for another, or generic.

        A literal segment wins over a placeholder. Of a path of which nothing is known the
        template is the one that its caller has ``written``, if it is of that.
        """
        segments = _split(path)
        method = method.upper()
        known = _find(self._root, segments, 0, method) or _find(self._root, segments, 0, None)
        if known is None and segments[-1:] == [_SUFFIX_MARK]:
            # "/files/{name}" may well be asked for "report.json".
            whole = _without_mark(segments)
            known = _find(self._root, whole, 0, method) or _find(self._root, whole, 0, None)
        if known is None and written is not None and is_of(written, path):
            segments = _split(written)
        return known or _join(_generic(segments))

    def _add(self, method: str, template: str) -> None:
        node = self._root
        segments = _split(template)
        for segment in segments:
            node = node.child(segment)
        node.templates.setdefault(method, _join(segments))


class _Node:
    """A place in the tree of templates: what may follow, and the templates that end here."""

    __slots__ = ("hole", "literals", "templates")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.hole: _Node | None = None
        self.templates: dict[str, str] = {}

    def child(self, segment: str) -> _Node:
        if not _is_placeholder(segment):
            return self.literals.setdefault(segment, _Node())
        if self.hole is None:
            self.hole = _Node()
        return self.hole

    def template(self, method: str | None) -> str | None:
        if method is None:
            return next(iter(self.templates.values()), None)
        return self.templates.get(method)


def _find(node: _Node, segments: list[str], at: int, method: str | None) -> str | None:
    """Walk the tree, literals first. The tree's depth and width bound the walk, not the path."""
    if at == len(segments):
        return node.template(method)
    segment = segments[at]
    literal = node.literals.get(segment)
    found = _find(literal, segments, at + 1, method) if literal is not None else None
    if found is None and node.hole is not None and segment != _SUFFIX_MARK:
        found = _find(node.hole, segments, at + 1, method)
    return found


def _split(path: str) -> list[str]:
    """Return the segments of a path, without its query, and the mark of a suffix."""
    for end in "?#":
        path = path.partition(end)[0]
    segments = [_decoded(segment) for segment in path.split("/") if segment]
    if segments and segments[-1].endswith(_SUFFIX) and segments[-1] != _SUFFIX:
        segments[-1:] = [segments[-1].removesuffix(_SUFFIX), _SUFFIX_MARK]
    return segments


def _without_mark(segments: list[str]) -> list[str]:
    """Return segments whose suffix belongs to the last of them."""
    return [*segments[:-2], segments[-2] + _SUFFIX]


def _join(segments: list[str]) -> str:
    if segments[-1:] == [_SUFFIX_MARK]:
        return "/" + "/".join(segments[:-1]) + _SUFFIX
    return "/" + "/".join(segments)


def _decoded(segment: str) -> str:
    """Undo encoding that has no meaning (RFC 3986, 2.3), and only that: %2F stays a value."""
    if "%" not in segment or len(segment) > 3 * _LONGEST_SEGMENT:
        return segment
    plain = unquote(segment)
    return plain if _UNRESERVED.issuperset(plain) else segment


def _generic(segments: list[str]) -> list[str]:
    if len(segments) > _MOST_SEGMENTS:
        segments = [*segments[:_MOST_SEGMENTS], _REST]
    names = [_HOLE if _is_value(segment) else segment for segment in segments]
    if segments and _is_version(segments[0]):
        names[0] = segments[0]
    return names


def _is_version(segment: str) -> bool:
    return len(segment) <= 2 and segment.isascii() and segment.isdigit()


def _is_value(segment: str) -> bool:
    if segment in (_REST, _SUFFIX_MARK):
        return False
    return (
        (segment.isascii() and segment.isdigit())
        or len(segment) > _LONGEST_SEGMENT
        or (len(segment) >= 16 and _is_hex(segment))
        or _is_uuid(segment)
        or _is_placeholder(segment)
    )


def _is_hex(segment: str) -> bool:
    return not segment.strip(hexdigits)


def _is_uuid(segment: str) -> bool:
    return (
        len(segment) == 36
        and all(segment[at] == "-" for at in _UUID_DASHES)
        and segment.count("-") == len(_UUID_DASHES)
        and _is_hex(segment.replace("-", ""))
    )


def _is_placeholder(segment: str) -> bool:
    return segment.startswith("{") and segment.endswith("}")


def _check_names(template: str, names: Collection[str], params: Mapping[str, object]) -> None:
    if "{" in (rest := _PLACEHOLDER.sub("", template)) or "}" in rest or "" in names:
        raise ValueError(f"{template!r} is no template: write placeholders as {{name}}")
    before_path = _BEFORE_PATH.match(template)
    if before_path is not None and "{" in before_path[0]:
        raise ValueError(f"{template!r} has a placeholder for a host: only paths have them")
    if missing := [name for name in names if name not in params]:
        raise ValueError(f"{template!r} needs path_params for {', '.join(missing)}")
    if unknown := [repr(name) for name in params if name not in names]:
        raise ValueError(f"{template!r} has no placeholder for {', '.join(unknown)}")


def _segment(template: str, name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID)):
        raise TypeError(
            f"path_params[{name!r}] of {template!r} is a {type(value).__name__}: "
            "pass a str, an int or a UUID"
        )
    text = value if isinstance(value, str) else str(value)
    if text.partition(";")[0] in ("", ".", ".."):
        # Servers and proxies resolve these to another path, in their encoded form too, and some
        # leave out what follows a semicolon before they do (parameters of RFC 3986, 3.3).
        raise ValueError(
            f"path_params[{name!r}] of {template!r} is {text!r}, which would make the path of "
            "another resource: check the value before the call"
        )
    try:
        return quote(text, safe="")
    except UnicodeEncodeError:
        raise ValueError(
            f"path_params[{name!r}] of {template!r} is not valid Unicode: it has a lone surrogate"
        ) from None
