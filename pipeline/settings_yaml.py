"""Read settings from YAML strictly, so that they are what the text says.

Three things differ from PyYAML's safe loader:
- A key (or `<<`) that stands twice in a mapping, a key that is not text, a tag, deep nesting, and
  aliases that would grow the settings beyond measure are errors with their line.
- Only decimal numbers are numbers and only true and false are truth values, as in YAML 1.2. PyYAML
  reads 012 as 10, 12:30 as 750 and no as false.
- A date stays text. PyYAML ends with a traceback at one that does not exist.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from omnitrace_core.base_options import is_utf8
from omnitrace_core.errors import ConfigError
from omnitrace_core.samples.values import shorten

Tree: TypeAlias = dict[str, object]

MAX_FILE_BYTES = 2**20
MAX_DEPTH = 20
_SHOWN_CHARS = 200
MAX_NODES = 10_000  # with each alias counted as all that it stands for

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
_NULL = re.compile(r"(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
# No plus sign, leading zero or underscore: the number as text is what was written.
_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,999})$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


def read_tree(path: str) -> Tree:
    """The sections of a YAML file. Raises: ConfigError: it cannot be read, or is not valid."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES:,} bytes; is it a config?")
        text = content.decode()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the config {path} cannot be read: {error}") from error
    try:
        tree = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_explain(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must be a mapping of sections such as input, output and model")
    return tree


def apply_override(tree: Tree, override: str) -> None:
    """Set one dotted key in the tree, from `key=value`. Raises: ConfigError."""
    key, equals, text = override.partition("=")
    if not is_utf8(override):
        raise ConfigError(f"override {_shown(override)} is not UTF-8; give key and value in UTF-8")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise ConfigError(
            f"override {_shown(override)} is not of the form key=value, such as "
            "trace.signals=[attmean]"
        )
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"override {key}: {_shown(text)} is not valid YAML: {_explain(error)}"
        ) from error
    node = tree
    for section in sections:
        child = node.get(section)
        # A section that is missing or empty in the file: create it to hold the key.
        if child is None:
            child = node[section] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"override {key}: {section} is a value, not a section")
        node = child
    node[last] = value


def read_yaml(text: str) -> object:
    """The value of a YAML document.

    Raises:
        yaml.YAMLError: the text is not YAML, or one of the errors that the module names.
    """
    return yaml.load(text, _StrictLoader)


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN_CHARS else shorten(text)


def _explain(error: yaml.YAMLError) -> str:
    """One of YAML's errors in one line: where, and what is wrong."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        problem = "; ".join(filter(None, (error.context, error.problem)))
        return f"line {error.problem_mark.line + 1}: {problem}"
    return " ".join(str(error).split())


class _StrictLoader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._n_nodes = 0
        self._sizes: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        before = self._n_nodes
        is_alias = isinstance(event, yaml.AliasEvent)
        if getattr(event, "tag", None) not in (None, "!", f"{_TAG}str"):
            raise _refused(f"the tag {event.tag!r} is not read", event.start_mark)
        if is_alias and event.anchor in self.anchors and event.anchor not in self._sizes:
            raise _refused(f"*{event.anchor} stands inside of what it names", event.start_mark)
        self._n_nodes += self._sizes.get(event.anchor, 0) if is_alias else 1
        if self._n_nodes > MAX_NODES:
            raise _refused(f"more than {MAX_NODES:,} values, aliases included", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _refused(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if not is_alias and event.anchor is not None:
            self._sizes[event.anchor] = self._n_nodes - before
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            # `<<` twice too: to merge several mappings YAML has `<<: [*a, *b]`.
            if key.tag not in (f"{_TAG}str", _MERGE):
                shown = getattr(key, "value", "") if isinstance(key, yaml.ScalarNode) else key.id
                raise _refused(f"the key {shown!r} is not text", key.start_mark)
            if key.value in lines:
                raise _refused(
                    f"the key {key.value!r} stands twice, first in line {lines[key.value]}; "
                    "keep one of them",
                    key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
        return node


def _refused(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_StrictLoader.yaml_implicit_resolvers = {}  # without those of the base class
for _name, _pattern, _first in (
    ("null", _NULL, ["~", "n", "N", ""]),
    ("bool", _BOOL, list("tTfF")),
    ("int", _INT, list("-0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", re.compile("<<$"), ["<"]),
):
    _StrictLoader.add_implicit_resolver(_TAG + _name, _pattern, _first)
